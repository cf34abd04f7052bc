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


loaded = {n: p for n, p in model.named_parameters() if not isinstance(p, torch.nn.UninitializedParameter)}  # noqa: F821
told = {
    "sha256": {name: _digest(parameter) for name, parameter in loaded.items()},
    "counted": dict(getattr(sys, "loadscope_test_counted", {})),
}
if os.environ.get("LOADSCOPE_TEST_KEEP"):
    torch.save(
        {name: parameter.detach().clone() for name, parameter in loaded.items()}, os.environ["LOADSCOPE_TEST_KEEP"]
    )
print("TOLD " + json.dumps(told), flush=True)
