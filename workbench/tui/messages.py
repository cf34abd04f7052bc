"""Every message of the workbench; floods collapse to the last one of their kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.message import Message

if TYPE_CHECKING:
    from workbench.tui.snapshot import Snapshot


class Moved(Message):
    """The list's cursor stands on another row."""

    def __init__(self, row: int) -> None:
        self.row = row
        super().__init__()

    def can_replace(self, message: Message) -> bool:
        """Only the last position of a flood counts."""
        return isinstance(message, Moved)


class Chosen(Message):
    """A row was clicked twice or Enter was pressed on it."""

    def __init__(self, row: int) -> None:
        self.row = row
        super().__init__()


class SnapshotReady(Message):
    """The reader's thread folded the session anew."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        super().__init__()

    def can_replace(self, message: Message) -> bool:
        """An older snapshot is of no use."""
        return isinstance(message, SnapshotReady)


class ReadingFailed(Message):
    """The session cannot be read: what happened, and what to try."""

    def __init__(self, what: str, try_: str) -> None:
        self.what, self.try_ = what, try_
        super().__init__()


class HostStateChanged(Message):
    """The host paused, went on, ended, or let go of the connection."""

    def __init__(self, generation: int) -> None:
        self.generation = generation
        super().__init__()

    def can_replace(self, message: Message) -> bool:
        """The receiver asks for the state itself."""
        return isinstance(message, HostStateChanged)


class SpineClicked(Message):
    """A place on the spine was clicked, as a fraction of the session."""

    def __init__(self, fraction: float) -> None:
        self.fraction = fraction
        super().__init__()
