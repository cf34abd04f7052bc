"""A program for tests: loads one checkpoint with each planted defect, recorded and once more without the probe.

    python load_defects.py OUT MODEL TP SCENARIO …

Recordings go to OUT/SCENARIO, and to OUT/clean for a load without a defect. Beside them SCENARIO.npz holds what a load
without the probe really did, counted by a `Tensor.copy_` of its own: `values|RANK|NAME` are the parameters as bytes per
element, `times|RANK|NAME` how often each element was written. Every load has a process of its own, forked after torch.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sessions.manifest import Manifest, Outcome
from workbench.launching import inspector_modules
from workbench.scenario import scenario_named

CLEAN = "clean"


def in_a_child(work: Any, *arguments: object) -> None:
    """Run `work` in a forked process; raises RuntimeError when it fails."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work(*arguments)
            code = 0
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code) if code else sys.exit(0)
    if os.waitpid(child, 0)[1] != 0:
        raise RuntimeError(f"{work.__name__}{arguments} failed")


def plant(name: str) -> None:
    if name != CLEAN:
        scenario_named(name).plant()


def record(name: str, out: Path, model: str, tp: int) -> None:
    folder = out / name
    folder.mkdir()
    told = Manifest(
        id=name, verb="demo", level="ledger", engines=("backends.engines.native",), inspectors=inspector_modules(),
        engine="native", device="cpu", tp=tp, model=model, name=name, outcome=Outcome("ok", 0, None, "", 1.0),
    )  # fmt: skip
    told.write(folder)
    os.environ["LOADSCOPE_SESSION"], os.environ["LOADSCOPE_LEVEL"] = str(folder), "ledger"
    from inspectors.probe.bootstrap import arm

    arm()
    from backends.native.loader import LoadOptions, load

    plant(name)
    load(model, LoadOptions(tp_size=tp))


def count(name: str, out: Path, model: str, tp: int) -> None:
    from backends.native import loader
    from backends.native.parallel.groups import tp_rank

    plant(name)
    copy, process, lock = torch.Tensor.copy_, loader.process_weights, threading.Lock()
    written: list[tuple[int, int, tuple[int, ...], tuple[int, ...]]] = []
    told: dict[str, np.ndarray] = {}

    def counted(target, source, *rest):
        with lock:
            written.append(
                (target.untyped_storage().data_ptr(), target.storage_offset(), target.shape, target.stride())
            )
        return copy(target, source, *rest)

    def snapshot(of):
        for parameter, tensor in of.named_parameters():
            times = torch.zeros(tensor.numel(), dtype=torch.int32)
            for storage, offset, shape, stride in written:
                if storage == tensor.untyped_storage().data_ptr():
                    times.as_strided(shape, stride, offset).add_(1)
            raw = tensor.detach().contiguous().view(-1).view(torch.uint8).numpy()
            told[f"values|{tp_rank()}|{parameter}"] = raw.reshape(*tensor.shape, tensor.element_size()).copy()
            told[f"times|{tp_rank()}|{parameter}"] = times.numpy().reshape(tensor.shape)
        return process(of)

    torch.Tensor.copy_, loader.process_weights = counted, snapshot
    loader.load(model, loader.LoadOptions(tp_size=tp))
    np.savez(out / f"{name}.npz", **told)


def main() -> None:
    out, model, tp, *names = sys.argv[1:]
    torch.set_num_threads(1)
    for work in (record, count):
        for name in (CLEAN, *names):
            in_a_child(work, name, Path(out), model, int(tp))
        if work is record:
            import backends.native.loader  # noqa: F401 - from here on nothing is recorded: the rest shares the import


if __name__ == "__main__":
    main()
