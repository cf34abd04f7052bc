"""Tells, without the probe, what vLLM's loader did: calls by a profiler, filled elements by patterns, and the values.

With LOADSCOPE_TEST_COUNT the weights are loaded twice, over two patterns that have no bit in common: an element that
still has its pattern both times was never filled, and gets back what it held before.
"""

import collections
import hashlib
import os
import sys

import torch
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader

PATTERNS = (0x5A, 0xA5)
load_weights = DefaultModelLoader.load_weights
told = sys.loadscope_test_told = {"counted": collections.Counter()}


def is_loader(code):
    return {"param", "loaded_weight"} <= set(code.co_varnames[: code.co_argcount])


def see(frame, event, _arg):
    # A loader that ends in another one is one call, whoever makes it.
    if event == "call" and is_loader(frame.f_code) and not is_loader(frame.f_back.f_code):
        told["counted"][frame.f_code.co_name] += 1


def bytes_of(parameter):
    """The parameter's own bytes, [elements, bytes of an element]."""
    plain = parameter.detach().as_subclass(torch.Tensor)
    return plain.reshape(-1).view(torch.uint8).view(plain.numel(), plain.element_size())


def digests(model):
    raw = {name: parameter.detach().contiguous() for name, parameter in model.named_parameters()}
    return {name: hashlib.sha256(bytes_of(one).numpy().tobytes()).hexdigest() for name, one in raw.items()}


def load_and_count(loader, model, config):
    raw = {name: bytes_of(parameter) for name, parameter in model.named_parameters()}
    before = {name: one.clone() for name, one in raw.items()}
    filled = {name: torch.zeros(len(one), dtype=torch.bool) for name, one in raw.items()}
    for pattern in PATTERNS:
        for one in raw.values():
            one.fill_(pattern)
        sys.setprofile(see if pattern == PATTERNS[-1] else None)
        load_weights(loader, model, config)
        sys.setprofile(None)
        for name, one in raw.items():
            filled[name] |= (one != pattern).any(1)
    for name, one in raw.items():
        one[~filled[name]] = before[name][~filled[name]]
    told["filled"] = {name: int(mask.sum()) for name, mask in filled.items()}


def load_and_tell(loader, model, config):
    if os.environ.get("LOADSCOPE_TEST_COUNT"):
        load_and_count(loader, model, config)
    else:
        load_weights(loader, model, config)
    told["loaded"] = digests(model)
    if os.environ.get("LOADSCOPE_TEST_KEEP"):
        values = {n: p.detach().as_subclass(torch.Tensor).clone() for n, p in model.named_parameters()}
        torch.save(values, f"{os.environ['LOADSCOPE_TEST_KEEP']}.{os.environ.get('RANK', '0')}")


DefaultModelLoader.load_weights = load_and_tell
