"""Prints what became of a load as one line of JSON: digests of all parameters, and the calls that were counted."""

import hashlib
import json
import os
import sys

import torch

sys.setprofile(None)


def _digest(parameter):
    raw = parameter.detach().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.sha256(raw.numpy().tobytes()).hexdigest()


told = {
    "sha256": {name: _digest(parameter) for name, parameter in model.named_parameters()},  # noqa: F821 - given by the launcher
    "counted": dict(getattr(sys, "loadscope_test_counted", {})),
}
if os.environ.get("LOADSCOPE_TEST_KEEP"):
    torch.save({n: p.detach().clone() for n, p in model.named_parameters()}, os.environ["LOADSCOPE_TEST_KEEP"])  # noqa: F821
print("TOLD " + json.dumps(told), flush=True)
