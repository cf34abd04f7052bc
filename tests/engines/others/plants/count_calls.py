"""Counts, without the probe, the calls of functions that take `param` and `loaded_weight`, by their names."""

import collections
import sys

COUNTED = collections.Counter()


def _is_loader(code):
    return {"param", "loaded_weight"} <= set(code.co_varnames[: code.co_argcount])


def _see(frame, event, _arg):
    # A loader that ends in another one is one call, whoever makes it.
    if event == "call" and _is_loader(frame.f_code) and not _is_loader(frame.f_back.f_code):
        COUNTED[frame.f_code.co_name] += 1


sys.loadscope_test_counted = COUNTED
sys.setprofile(_see)
