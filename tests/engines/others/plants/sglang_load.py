"""Tells, without the probe, what SGLang's load did: calls by a profiler, filled elements by patterns, and the values.

With LOADSCOPE_TEST_COUNT two models are built and loaded, over two patterns that have no bit in common: an element that
has its pattern in both was never filled, and gets back what the model was built with. With LOADSCOPE_TEST_GHOSTS
(folders of safetensors files) the model is loaded from each of them instead, and what each gave is kept.
"""

import collections
import hashlib
import os
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from sglang.srt.model_loader import loader

PATTERNS = (0x5A, 0xA5)
build = loader._initialize_model
materialize = torch.nn.UninitializedParameter.materialize
told = sys.loadscope_test_told = {"counted": collections.Counter()}
filling = []
"""The pattern that memory made meanwhile gets, if any."""


def is_loader(code):
    return {"param", "loaded_weight"} <= set(code.co_varnames[: code.co_argcount])


def see(frame, event, _arg):
    # A loader that ends in another one is one call, whoever makes it.
    if event == "call" and is_loader(frame.f_code) and not is_loader(frame.f_back.f_code):
        told["counted"][frame.f_code.co_name] += 1


def is_made(parameter):
    return not isinstance(parameter, torch.nn.UninitializedParameter)


def made(model):
    return {name: parameter for name, parameter in model.named_parameters() if is_made(parameter)}


def bytes_of(parameter):
    """The parameter's own bytes, [elements, bytes of an element]."""
    plain = parameter.detach().as_subclass(torch.Tensor)
    return plain.reshape(-1).view(torch.uint8).view(plain.numel(), plain.element_size())


def digests(model):
    raw = {name: parameter.detach().contiguous() for name, parameter in made(model).items()}
    return {name: hashlib.sha256(bytes_of(one).numpy().tobytes()).hexdigest() for name, one in raw.items()}


def materialize_filled(parameter, *args, **kwargs):
    materialize(parameter, *args, **kwargs)
    for pattern in filling:
        bytes_of(parameter).fill_(pattern)


def load_and_count(twins, load, weights):
    before = {name: bytes_of(one).clone() for name, one in made(twins[-1]).items()}
    filled = {}
    for twin, pattern in zip(twins, PATTERNS, strict=True):
        filling[:] = [pattern]
        for one in made(twin).values():
            bytes_of(one).fill_(pattern)
        sys.setprofile(see if twin is twins[-1] else None)
        load(twin, list(weights))
        sys.setprofile(None)
        for name, one in made(twin).items():
            has_changed = (bytes_of(one) != pattern).any(1)
            filled[name] = filled[name] | has_changed if name in filled else has_changed
    filling.clear()
    for name, one in made(twins[-1]).items():
        if name in before:
            bytes_of(one)[~filled[name]] = before[name][~filled[name]]
    told["filled"] = {name: int(mask.sum()) for name, mask in filled.items()}


def tensors_in(folder):
    for file in sorted(Path(folder).glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - no mapping
                yield name, opened.get_tensor(name)


def load_ghosts(model, load, folders):
    for folder in folders:
        load(model, tensors_in(folder))
        values = {name: one.detach().as_subclass(torch.Tensor).clone() for name, one in made(model).items()}
        torch.save(values, f"{folder}.pt")
    raise SystemExit(0)


def build_and_tell(*args, **kwargs):
    model = build(*args, **kwargs)
    is_counting = "LOADSCOPE_TEST_COUNT" in os.environ
    twins = (build(*args, **kwargs), model) if is_counting else (model,)
    load = type(model).load_weights

    def load_weights(weights):
        if "LOADSCOPE_TEST_GHOSTS" in os.environ:
            load_ghosts(model, load, os.environ["LOADSCOPE_TEST_GHOSTS"].split(os.pathsep))
        if is_counting:
            load_and_count(twins, load, list(weights))
        else:
            load(model, weights)
        told["loaded"] = digests(model)
        if os.environ.get("LOADSCOPE_TEST_KEEP"):
            values = {name: one.detach().as_subclass(torch.Tensor).clone() for name, one in made(model).items()}
            torch.save(values, os.environ["LOADSCOPE_TEST_KEEP"])

    model.load_weights = load_weights
    return model


torch.nn.UninitializedParameter.materialize = materialize_filled
loader._initialize_model = build_and_tell
