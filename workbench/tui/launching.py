"""What the screens need from whoever can start a host: the screens themselves start no process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Wanted:
    """A load that a person asked for; `scenario` set means a planted defect with a checkpoint of its own."""

    model: str = ""
    engine: str = "native"
    tp: int = 1
    level: str = "ledger"
    is_paused: bool = False
    scenario: str | None = None


class Launcher(Protocol):
    """Starts a host and returns its session folder. UserError or SessionError say why it cannot."""

    def __call__(self, model: str, engine: str, tp: int, level: str, is_paused: bool, scenario: str | None) -> Path:
        """Start a host; called in a thread."""


@dataclass(frozen=True)
class Replayed:
    """What came of doing a load again, as lines; `position` is the first event that differs, None when none does.

    `is_verdict` is False where it could not be done, and the lines say why.
    """

    lines: tuple[str, ...]
    position: int | None = None
    is_verdict: bool = True


class Replayer(Protocol):
    """Does the load of a session again. UserError or SessionError say why it cannot."""

    def __call__(self, session: Path, progress: Callable[[int, int], None]) -> Replayed:
        """Run it to its end; called in a thread, `progress` is told events so far and events recorded."""
