"""What one event costs: time in the thread that records it, bytes on disk, and how long a session takes to close.

`python tests/benchmarks/event_cost.py`: nine sessions of 12,000 events each, of the kinds of a load; medians. The
control is the same loop with a recorder that has ended: it makes the events and keeps none.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from paired import describe_machine, pinned

from inspectors.probe.events import LoaderCalled, ShardSplit, TensorRead
from inspectors.probe.recorder import Recorder

EVENTS, ROUNDS = 12_000, 9


def record(recorder: Recorder, tensors: int) -> None:
    """Three events a tensor, with names and shapes as a mixture of experts has them."""
    for number in range(tensors):
        name = f"model.layers.{number // 768}.mlp.experts.{number % 256}.gate_proj.weight"
        recorder.point(TensorRead(name, "bfloat16", (64, 64), 8192))
        called = LoaderCalled(
            name, "model.layers.0.mlp.experts.w13_weight", "Parameter", "bfloat16", (256, 128, 64), "bfloat16",
            (64, 64), 8192, "'w1'", number % 256, "engine.layers.FusedMoE.weight_loader", "layers.py:60",
        )  # fmt: skip
        span = recorder.begin(called, 0)
        recorder.point(ShardSplit("model.layers.0.mlp.experts.w13_weight", name, 0, 0, 64, 128, "slice"), 0)
        recorder.end(span, called.but(outcome="returned"))


def one_session(folder: Path, *, is_kept: bool) -> tuple[float, float, float]:
    """Microseconds an event, milliseconds to close, bytes an event."""
    recorder = Recorder(folder)
    if not is_kept:
        recorder.close()
    start = time.thread_time()
    record(recorder, EVENTS // 3)
    spent, begun = time.thread_time() - start, time.perf_counter()
    recorder.close()
    closed = time.perf_counter() - begun
    size = sum(file.stat().st_size for file in folder.rglob("*.sqlite"))
    return spent / EVENTS * 1e6, closed * 1e3, size / EVENTS


def main() -> None:
    """Print the medians."""
    pinned()
    describe_machine()
    with tempfile.TemporaryDirectory() as root:
        for name, is_kept in (("recorded", True), ("made, not recorded", False)):
            rounds = [one_session(Path(root) / f"{name}{n}", is_kept=is_kept) for n in range(ROUNDS)]
            micros, millis, size = (statistics.median(column) for column in zip(*rounds, strict=True))
            print(f"{name:20} {micros:6.2f} µs an event   closes in {millis:6.1f} ms   {size:6.1f} bytes an event")


if __name__ == "__main__":
    main()
