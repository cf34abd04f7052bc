"""Counts what the native stack does while it loads a checkpoint, by Python's own profiler and no code of the probe.

Run as a program: `count_calls.py MODEL TP PROMPT NEW_TOKENS`; prints one JSON object.
"""

from __future__ import annotations

import json
import sys
import threading
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from backends.native import weights
from backends.native.generate import generate
from backends.native.loader import Loaded, LoadOptions, load
from backends.native.quantization.skip import is_layer_skipped

CALLER = weights.load_model_weights.__code__


class Profile:
    """One per process; the ranks take turns, so plain counting is enough."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.loading: dict[int, Any] = {}

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code is is_layer_skipped.__code__:
            self.counts["skip_decisions"] += 1
        is_called_there = frame.f_back is not None and frame.f_back.f_code is CALLER
        is_loader = is_called_there and {"param", "loaded_weight"} <= frame.f_locals.keys()
        if event == "call" and is_loader:
            self.counts["weight_loader_calls"] += 1
            self.loading[threading.get_ident()] = frame.f_locals["loaded_weight"]
        elif event == "return" and is_loader:
            self.loading.pop(threading.get_ident(), None)
        elif event == "c_call" and getattr(argument, "__name__", "") == "narrow" and is_ours(frame):
            self.counts["shard_splits"] += self.is_of_the_checkpoint(argument.__self__)
        elif event == "return" and frame.f_code is torch.split.__code__ and is_ours(frame.f_back):
            pieces = len(argument) if len(argument) > 1 else 0  # one piece is the whole: nothing was cut
            self.counts["shard_splits"] += pieces * self.is_of_the_checkpoint(frame.f_locals["tensor"])

    def is_of_the_checkpoint(self, tensor: Any) -> bool:
        """Whether a loader of this thread was given this tensor, or one of which it is a view; a parameter is not."""
        source = self.loading.get(threading.get_ident())
        return source is not None and tensor.untyped_storage().data_ptr() == source.untyped_storage().data_ptr()


def is_ours(frame: FrameType | None) -> bool:
    """Whether a call was made by the stack: torch calls itself once more in its own frames."""
    return frame is not None and "backends" in frame.f_code.co_filename


class CountedOperations(TorchDispatchMode):
    """Counts the operators that torch dispatches."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        CountedOperations.count += 1
        return func(*args, **(kwargs or {}))


def count_operators(loaded: Loaded, prompt_ids: list[int], new_tokens: int) -> int:
    """The operators of all forward passes of all ranks."""
    for model in loaded.models:
        model.forward = counted(model.forward)
    generate(loaded, prompt_ids, new_tokens)
    return CountedOperations.count


def counted(forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        with CountedOperations():
            return forward(*args, **kwargs)

    return run


def main(model: str, tp_size: int, prompt_ids: list[int], new_tokens: int) -> None:
    """Load once under the profile, generate, and print the counts."""
    profile = Profile()
    threading.setprofile(profile)
    sys.setprofile(profile)
    loaded = load(model, LoadOptions(tp_size=tp_size))
    sys.setprofile(None)
    threading.setprofile(None)
    parameters = [parameter for rank in loaded.models for _, parameter in rank.named_parameters()]
    facts = {"parameters": len(parameters), "elements": sum(parameter.numel() for parameter in parameters)}
    launches = count_operators(loaded, prompt_ids, new_tokens)
    print(json.dumps({**profile.counts, **facts, "kernel_launches": launches}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), json.loads(f"[{sys.argv[3]}]"), int(sys.argv[4]))
