"""What the threads of a host were doing when it was given up: told by its probe, else by the kernel."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from sessions.bundle.layout import STACKS
from sessions.control import Control, ControlError

_PROC = Path("/proc")


def write_stacks(folder: Path, group: int, why: str) -> None:
    """Write `stacks.txt` into the session: every thread of every process of the host's process group.

    A process in which no engine was found yet, or that holds Python's lock, cannot be asked: of it the kernel's word
    is kept, which names no Python function.
    """
    told = {control.pid: list(_asked(control)) for control in Control.connect_all(folder)}
    lines = [why]
    for pid in sorted({*told, *_group(group)}):
        lines += ["", f"process {pid}: {_command(pid)}", *(told.get(pid) or list(_of_kernel(pid)))]
    try:
        (folder / STACKS).write_text("\n".join(lines) + "\n", encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        print(f"loadscope: the stacks of the host cannot be kept: {error}", file=sys.stderr)


def _asked(control: Control) -> Iterator[str]:
    with control:
        try:
            yield from _of_threads(control.stacks())
        except ControlError as error:
            yield f"  did not answer: {error}"


def _of_threads(threads: list[tuple[str, list[str]]]) -> Iterator[str]:
    for name, frames in threads:
        yield f"  thread {name}, innermost call first"
        yield from (f"    {frame}" for frame in frames)


def _of_kernel(pid: int) -> Iterator[str]:
    yield "  not asked, no engine was found in it: the kernel says of its threads"
    for task in sorted((_PROC / str(pid) / "task").glob("*"), key=lambda path: int(path.name)):
        waits = _text(task / "wchan") or "running"
        yield f"    {task.name} {_text(task / 'comm')}: {waits if waits != '0' else 'running'}"


def _group(group: int) -> list[int]:
    """The processes of a process group; none where there is no /proc."""
    found = []
    for folder in _PROC.glob("[0-9]*"):
        facts = _text(folder / "stat").rpartition(")")[2].split()
        if len(facts) > 2 and facts[2] == str(group):
            found.append(int(folder.name))
    return found


def _command(pid: int) -> str:
    return _text(_PROC / str(pid) / "cmdline").replace("\0", " ").strip() or "?"


def _text(path: Path) -> str:
    try:
        return os.fsdecode(path.read_bytes()).strip()
    except OSError:
        return ""
