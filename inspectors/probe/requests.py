"""What a client that was let in can ask of a host, one request a line."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inspectors.probe import sessionfiles, together
from inspectors.probe.numbers import inspect_tensor

if TYPE_CHECKING:
    from inspectors.probe.gate import Gate

TAKING = frozenset({"files", "piece", "tables", "rows"})
"""Requests by which a client takes the session's files."""
_MAX_FRAMES = 100


class RequestError(ValueError):
    """A request that cannot be done; its text is the reply's `error`."""


_Do = Callable[["Gate", dict[str, Any]], dict[str, Any]]


def answer(gate: Gate, line: bytes) -> tuple[str, dict[str, Any]]:
    """What was asked for, "" if nothing sensible, and the reply. Never raises."""
    name = ""
    try:
        asked = json.loads(line)
        name, do = _request(asked)
        return name, {"ok": True, **do(gate, asked)}
    except Exception as error:
        return name, {"ok": False, "error": f"{error}" if isinstance(error, ValueError) else repr(error)}


def _request(asked: object) -> tuple[str, _Do]:
    if not isinstance(asked, dict):
        raise RequestError("a request is an object with a key 'do'")
    name = str(asked.get("do"))
    do = _REQUESTS.get(name)
    if do is None:
        raise RequestError(f"unknown request {asked.get('do')!r}; known are {', '.join(_REQUESTS)}")
    return name, do


def _run(gate: Gate, asked: dict[str, Any]) -> dict[str, Any]:
    at_most = asked.get("at_most")
    gate.run(str(asked.get("until")), None if at_most is None else int(at_most), goes_on=asked.get("goes_on") is True)
    return {}


def _set_breakpoints(gate: Gate, asked: dict[str, Any]) -> dict[str, Any]:
    texts = asked.get("set")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise RequestError("breakpoints are given as a list of texts under 'set'")
    gate.set_breakpoints(texts)
    return {"breakpoints": texts}


def _inspect(gate: Gate, asked: dict[str, Any]) -> dict[str, Any]:
    held = gate.at_hand()
    if held is None:
        raise RequestError("no tensor is at hand: the host is not paused inside a loader call")
    what = asked.get("what", "source")
    if what not in {"source", "parameter"}:
        raise RequestError(f"cannot inspect {what!r}; known are source, parameter")
    name, tensor = (held.source_name, held.source) if what == "source" else (held.parameter_name, held.parameter)
    places = [int(asked.get(key, default)) for key, default in _WINDOW.items()]
    return {"name": name, **inspect_tensor(tensor, *places)}


_WINDOW = {"row": 0, "column": 0, "rows": 8, "columns": 8}


def _stacks(gate: Gate, asked: dict[str, Any]) -> dict[str, Any]:
    """What every thread of the host is doing: its name and `file:line function`, innermost first."""
    del gate, asked
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    threads = []
    for ident, frame in sys._current_frames().items():  # noqa: SLF001 - the documented way, for all its name
        name, at = names.get(ident, f"thread {ident}"), frame
        lines: list[str] = []
        while at is not None and len(lines) < _MAX_FRAMES:
            lines.append(f"{at.f_code.co_filename}:{at.f_lineno} {at.f_code.co_name}")
            at = at.f_back  # type: ignore[assignment]
        if not name.startswith("loadscope-"):
            threads.append({"name": name, "frames": lines})
    return {"pid": os.getpid(), "threads": threads}


def _done(act: Callable[[Gate], None]) -> _Do:
    def do(gate: Gate, asked: dict[str, Any]) -> dict[str, Any]:
        del asked
        act(gate)
        return {}

    return do


def _taken(take: Callable[[Path, dict[str, Any]], dict[str, Any]], gate: Gate, asked: dict[str, Any]) -> dict[str, Any]:
    return take(gate.folder, asked)


_REQUESTS: dict[str, _Do] = {
    "state": lambda gate, _: gate.state(),
    "wait": lambda gate, asked: gate.wait(float(asked.get("seconds", 10.0))),
    "run": _run,
    "breakpoints": _set_breakpoints,
    "inspect": _inspect,
    "stacks": _stacks,
    "pause": _done(lambda gate: gate.pause()),
    "release": _done(lambda gate: gate.release()),
    "files": lambda gate, _: sessionfiles.listing(gate.folder),
    "piece": partial(_taken, sessionfiles.piece),
    "tables": partial(_taken, sessionfiles.tables),
    "rows": partial(_taken, sessionfiles.rows),
    **together.REQUESTS,
}
