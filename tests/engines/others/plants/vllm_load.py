"""Keeps what vLLM loaded, before post-processing takes it apart: digests of every parameter, and values on request."""

import gc
import hashlib
import os
import sys

import torch
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader

load_weights = DefaultModelLoader.load_weights
told = sys.loadscope_test_told = {}


def bytes_of(parameter):
    """The parameter's own bytes, [elements, bytes of an element]."""
    plain = parameter.detach().as_subclass(torch.Tensor)
    return plain.reshape(-1).view(torch.uint8).view(plain.numel(), plain.element_size())


def digests(model):
    """A digest of every parameter's bytes in row-major order."""
    raw = {name: parameter.detach().contiguous() for name, parameter in model.named_parameters()}
    return {name: hashlib.sha256(bytes_of(one).numpy().tobytes()).hexdigest() for name, one in raw.items()}


def load_and_tell(loader, model, config):
    load_weights(loader, model, config)
    told["loaded"] = digests(model)
    if os.environ.get("LOADSCOPE_TEST_KEEP"):
        values = {n: p.detach().as_subclass(torch.Tensor).clone() for n, p in model.named_parameters()}
        torch.save(values, f"{os.environ['LOADSCOPE_TEST_KEEP']}.{os.environ.get('RANK', '0')}")


DefaultModelLoader.load_weights = load_and_tell
gc.collect()
gc.freeze()  # vLLM collects garbage again and again; what it imported is none
