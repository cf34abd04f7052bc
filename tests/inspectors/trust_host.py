"""A host that loads checkpoints with the native stack, says what came of each, and counts what it did by itself.

Run as a program with one JSON object: `models` (folders), `tp`, `counts` (whether to count, by Python's profiler and by
modes of torch; without the probe), `launches` (whether to count those in any case), `threads` (folders loaded last on
one rank, each loader call in a thread of a pool). Prints one JSON object a model. With `times`, a file, the processor
time of the thread at each finished loader call goes there at once, and the first model is loaded over and over until
the host is killed.
"""

from __future__ import annotations

from inspectors.probe.bootstrap import arm

arm()

import hashlib  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402
import time  # noqa: E402
from collections import Counter  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from concurrent.futures import ThreadPoolExecutor  # noqa: E402
from contextlib import contextmanager, nullcontext  # noqa: E402
from types import CodeType, FrameType  # noqa: E402
from typing import Any  # noqa: E402

import torch  # noqa: E402
from torch.overrides import TorchFunctionMode  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from backends.native import weights  # noqa: E402
from backends.native.loader import Loaded, LoadOptions, load  # noqa: E402
from backends.native.parallel.lockstep import run_ranks  # noqa: E402
from backends.native.parallel.processes import joined_processes, world_size  # noqa: E402
from backends.native.quantization.skip import is_layer_skipped  # noqa: E402

IDS, POSITIONS = torch.arange(1, 6), torch.arange(5)


class OutermostLoaders:
    """Counts loader calls of any thread by their arguments' names: what the outermost one calls belongs to it."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._here = threading.local()
        self._is_loader: dict[CodeType, bool] = {}

    @property
    def source(self) -> int:
        """The memory of the tensor that this thread's loader was given, 0 outside one."""
        return getattr(self._here, "source", 0)

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code is is_layer_skipped.__code__:
            self.counts["skip.decided"] += 1
        if event in {"call", "return"} and self._concerns(frame.f_code):
            depth = getattr(self._here, "depth", 0) + (1 if event == "call" else -1)
            self._here.depth = depth
            if event == "call" and depth == 1:
                self.counts["loader.called"] += 1
                self._here.source = frame.f_locals["loaded_weight"].untyped_storage().data_ptr()
            elif depth == 0:
                self._here.source = 0

    def _concerns(self, code: CodeType) -> bool:
        if code not in self._is_loader:
            given = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
            is_ours = f"{os.sep}native{os.sep}layers{os.sep}" in code.co_filename
            self._is_loader[code] = is_ours and {"param", "loaded_weight"} <= {*given}
        return self._is_loader[code]


CUTTING = frozenset({"narrow", "split", "chunk", "select", "unbind", "__getitem__", "tensor_split"})


class Cuts(TorchFunctionMode):
    """Counts the parts that functions of torch cut off the tensor that a loader was given; the whole is no part."""

    def __init__(self, profile: OutermostLoaders) -> None:
        super().__init__()
        self._profile = profile

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        is_cut = getattr(func, "__name__", "") in CUTTING and isinstance(args[0], torch.Tensor)
        if is_cut and args[0].untyped_storage().data_ptr() == self._profile.source:
            parts = out if isinstance(out, tuple | list) else [out]
            self._profile.counts["shard.split"] += sum(part.numel() < args[0].numel() for part in parts)
        return out


class CountedOperations(TorchDispatchMode):
    """Counts the operators that torch dispatches."""

    def __init__(self, counts: Counter[str]) -> None:
        super().__init__()
        self._counts = counts

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._counts["kernel.launched"] += 1
        return func(*args, **(kwargs or {}))


def in_threads(model: Any, iterator: Any, mapping: Any) -> Any:
    """`load_model_weights` with each call in a thread of a pool; its code takes that one's place."""
    parameters = dict(model.named_parameters())
    with ThreadPoolExecutor(4) as pool:
        done = []
        for name, tensor in iterator:
            if mapping.ignores(name):
                continue
            for target, part in mapping.placements(name, tensor, parameters):
                param = parameters[target.parameter]
                loader = getattr(param, "weight_loader", default_weight_loader)  # noqa: F821
                done.append(pool.submit(loader, param, part, **target.arguments))
        for one in done:
            one.result()
    return LoadReport(len(parameters), len(parameters), (), (), (), ())  # noqa: F821


def digest(tensors: Any) -> str:
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(str((tensor.dtype, tuple(tensor.shape))).encode())
        found.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def ran(loaded: Loaded, counts: Counter[str] | None) -> torch.Tensor:
    def forward(rank: int) -> torch.Tensor:
        with CountedOperations(counts) if counts is not None else nullcontext():
            return loaded.model(rank)(IDS, POSITIONS)

    return run_ranks(loaded.tp_size, forward)[0]


@contextmanager
def counting(profile: OutermostLoaders) -> Iterator[None]:
    """Every thread that begins inside is profiled, and its cuts are counted."""
    run = threading.Thread.run

    def run_counted(thread: threading.Thread) -> None:
        with Cuts(profile):
            run(thread)

    threading.Thread.run = run_counted
    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        with Cuts(profile):
            yield
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
        threading.Thread.run = run


def load_and_say(model: str, options: dict[str, Any]) -> dict[str, Any]:
    profile = OutermostLoaders()
    said: dict[str, Any] = {"model": model}
    loaded = None
    with counting(profile) if options.get("counts") else nullcontext():
        try:
            loaded = load(model, LoadOptions(tp_size=options["tp"]))
        except Exception as error:  # noqa: BLE001 - a planted one; the caller compares its text
            said["error"] = f"{type(error).__name__}: {error}"
    if loaded is not None:
        named = [(f"{n}/{name}", p) for n, one in enumerate(loaded.models) for name, p in one.named_parameters()]
        said["parameters"] = {name: digest([p]) for name, p in named}
        is_counted = options.get("counts") or options.get("launches")
        said["logits"] = digest([ran(loaded, profile.counts if is_counted else None)])
    return {**said, "counts": profile.counts}


def load_forever(model: str, options: dict[str, Any]) -> None:
    """Each finished call of the iterator's consumer writes a time: the call before it is over by then."""
    out = os.open(options["times"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    place = weights.NameMapping.placements

    def timed(self: Any, *given: Any) -> Any:
        for one in place(self, *given):
            yield one
            os.write(out, b"%d\n" % time.thread_time_ns())  # asked for the next: the loader call of this one returned

    weights.NameMapping.placements = timed
    print("ready", flush=True)
    while True:
        load(model, LoadOptions(tp_size=options["tp"]))


def main(options: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    with joined_processes() if world_size() > 1 else nullcontext():
        for model in options["models"]:
            if options.get("times"):
                load_forever(model, options)
            print(json.dumps(load_and_say(model, options)), flush=True)
    weights.ThreadPoolExecutor = ThreadPoolExecutor
    weights.load_model_weights.__code__ = in_threads.__code__
    for model in options.get("threads", ()):
        print(json.dumps(load_and_say(model, {**options, "tp": 1})), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
