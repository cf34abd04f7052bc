"""What the session's manifest tells the probe: level, engines, inspectors, limits, breakpoints."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inspectors.probe.inspector import Inspector
from inspectors.probe.recorder import DEFAULT_MAX_EVENTS
from inspectors.probe.stages import LEVELS
from inspectors.probe.tracepoint import Engine

DEFAULT_MAX_KEPT_BYTES = 1 << 30
"""Of the copies that a process keeps in memory until their pass has ended."""


@dataclass(frozen=True)
class Settings:
    """The keys of session.json that a host reads; LOADSCOPE_LEVEL, _HOLD and _LISTEN go before the file's.

    `hold_seconds` is how long a host waits for somebody at an exception; 0: not at all. `listen` is the HOST:PORT at
    which it listens beside its Unix socket, "" for none.
    """

    folder: Path
    level: str = "calls"
    engines: tuple[str, ...] = ()
    inspectors: tuple[str, ...] = ()
    is_paused_at_start: bool = False
    breakpoints: tuple[str, ...] = ()
    max_events: int = DEFAULT_MAX_EVENTS
    max_kept_bytes: int = DEFAULT_MAX_KEPT_BYTES
    hold_seconds: float = 0.0
    listen: str = ""

    @classmethod
    def read(cls, folder: str) -> Settings:
        """Read `folder`/session.json; raises OSError or ValueError naming the key that cannot be used."""
        path = Path(folder) / "session.json"
        said = json.loads(path.read_text("utf-8"))
        if not isinstance(said, dict):
            raise ValueError(f"{path} holds {type(said).__name__}, not an object")  # noqa: TRY004 - a file's content
        level = os.environ.get("LOADSCOPE_LEVEL") or said.get("level") or "calls"
        if level not in LEVELS:
            raise ValueError(f"level {level!r} is none of {', '.join(LEVELS)}")
        return cls(
            folder=Path(folder),
            level=level,
            engines=_names(said, "engines"),
            inspectors=_names(said, "inspectors"),
            is_paused_at_start=said.get("is_paused_at_start") is True,
            breakpoints=_names(said, "breakpoints"),
            max_events=int(said.get("max_events") or DEFAULT_MAX_EVENTS),
            max_kept_bytes=int(said.get("max_kept_bytes") or DEFAULT_MAX_KEPT_BYTES),
            hold_seconds=float(os.environ.get("LOADSCOPE_HOLD") or said.get("hold_seconds") or 0.0),
            listen=str(os.environ.get("LOADSCOPE_LISTEN") or said.get("listen") or ""),
        )

    def load_engines(self) -> tuple[Engine, ...]:
        """The ENGINE constants of the adapters named in `engines`; raises ImportError or AttributeError."""
        return tuple(importlib.import_module(name).ENGINE for name in self.engines)

    def load_inspectors(self, on_fault: Callable[[str, Exception], None]) -> list[Inspector]:
        """The INSPECTOR constants of the modules named in `inspectors`, lowest level first.

        One that cannot be had is given to `on_fault(name, error)`; the others are there all the same.
        """
        found: list[Inspector] = []
        for name in self.inspectors:
            try:
                found.append(importlib.import_module(name).INSPECTOR)
            except Exception as error:  # noqa: PERF203 - each is imported once
                on_fault(name.rpartition(".")[2], error)
        return sorted(found, key=lambda one: LEVELS.index(one.level))


def _names(said: dict[str, Any], key: str) -> tuple[str, ...]:
    value = said.get(key) or ()
    if not isinstance(value, (list, tuple)) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"key {key!r} of session.json holds {value!r}, not a list of names")
    return tuple(value)
