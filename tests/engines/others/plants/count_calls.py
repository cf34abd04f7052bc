"""Counts, without the probe, the calls that a model's load_weights makes, by the called function's name."""

import collections
import sys

COUNTED = collections.Counter()


def _see(frame, event, _arg):
    if event == "call" and frame.f_back is not None and frame.f_back.f_code.co_name == "load_weights":
        names = frame.f_code.co_varnames[: frame.f_code.co_argcount]
        if {"param", "loaded_weight"} <= set(names) or {"self", "param", "loaded_weight"} <= set(names):
            COUNTED[frame.f_code.co_qualname.rpartition(".")[2]] += 1


sys.loadscope_test_counted = COUNTED
sys.setprofile(_see)
