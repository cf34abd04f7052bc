"""Times contenders in turns, in one process and on one thread, and compares each round with that round's baseline."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

import torch

ROUNDS = 9
AGAIN = " again"
"""What the baseline is called when it is measured against itself."""


@dataclass(frozen=True)
class Figure:
    """One contender; the ratios are the baseline's time by its own.

    They are medians over pairs of a round; `ratio_of_best` is that of the rounds that were disturbed least.
    """

    work: str
    contender: str
    median_ms: float
    gigabytes_per_s: float
    baseline: str
    ratio: float
    ratio_processor: float
    ratio_of_best: float


def pinned() -> None:
    """One thread on one core, or the clock counts what other threads wait for."""
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def measured(
    work: str, contenders: Mapping[str, Callable[[], object]], size_bytes: int, baseline: str, rounds: int = ROUNDS
) -> list[Figure]:
    """Run all of `contenders` once, then `rounds` times in turns; the baseline runs twice a round, as a control.

    Each time is taken as time on the clock and as time of the processor, which other programs disturb less.
    """
    calls = {baseline: contenders[baseline], baseline + AGAIN: contenders[baseline], **contenders}
    clock: dict[str, list[float]] = {name: [] for name in calls}
    processor: dict[str, list[float]] = {name: [] for name in calls}
    for call in contenders.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            clock_start, processor_start = time.perf_counter(), time.thread_time()
            call()
            processor[name].append(time.thread_time() - processor_start)
            clock[name].append(time.perf_counter() - clock_start)
    return [
        Figure(
            work,
            name,
            statistics.median(clock[name]) * 1e3,
            size_bytes / statistics.median(clock[name]) / 1e9,
            baseline,
            _ratio(clock[baseline], clock[name]),
            _ratio(processor[baseline], processor[name]),
            min(processor[baseline]) / min(processor[name]),
        )
        for name in calls
    ]


def _ratio(baseline: list[float], own: list[float]) -> float:
    return statistics.median(one / other for one, other in zip(baseline, own, strict=True))


def report(figures: list[Figure]) -> None:
    """A table, or JSON lines with `--json`."""
    if "--json" in sys.argv:
        for figure in figures:
            print(json.dumps(asdict(figure)))
        return
    print(f"{figures[0].work}\n  {'':40} {'ms':>8} {'GB/s':>7}  × {figures[0].baseline} (clock, processor, best)")
    for one in figures:
        speed = f"{one.median_ms:8.1f} {one.gigabytes_per_s:7.2f}"
        print(
            f"  {one.contender:40} {speed}  {one.ratio:6.2f} {one.ratio_processor:6.2f} {one.ratio_of_best:6.2f}",
            flush=True,
        )


def describe_machine() -> None:
    """Where and when the figures were taken."""
    described = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    names = [line.partition(":")[2].strip() for line in described.splitlines() if line.startswith("model name")]
    cpu, cores = names[0] if names else "unknown processor", os.cpu_count()
    when = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    text = f"# {when}, {cpu}, {cores} cores, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}, one thread"
    print(text, file=sys.stderr if "--json" in sys.argv else sys.stdout)
