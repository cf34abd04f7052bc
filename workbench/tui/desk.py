"""Where one stands in a session: question, lens and row of each question, `now`, and the stack of places."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field, replace

from workbench.tui.lens import Lens, Place


@dataclass
class Desk:
    """The only state of the workbench that keys change. `now` None follows the end of the session."""

    look: str = "timeline"
    now: int | None = None
    lenses: dict[str, Lens] = field(default_factory=dict)
    rows: dict[str, Hashable] = field(default_factory=dict)
    stack: list[Place] = field(default_factory=list)
    bookmarks: list[Place] = field(default_factory=list)
    breakpoints: list[str] = field(default_factory=list)

    @property
    def lens(self) -> Lens:
        """The lens of the open question."""
        return self.lenses.get(self.look, Lens())

    @lens.setter
    def lens(self, lens: Lens) -> None:
        self.lenses[self.look] = lens

    @property
    def here(self) -> Place:
        """The place to come back to."""
        return Place(self.look, self.rows.get(self.look), self.now)

    def set_rank(self, rank: int | None) -> None:
        """One rank for every question."""
        for look in {*self.lenses, self.look}:
            self.lenses[look] = replace(self.lenses.get(look, Lens()), rank=rank)
        self.rank = rank

    rank: int | None = None

    def turn_to(self, look: str) -> None:
        """Open a question; the rank comes along."""
        self.look = look
        self.lens = replace(self.lens, rank=self.rank)

    def leave_for(self, place: Place) -> None:
        """Keep this place on the stack and go to another."""
        self.stack.append(self.here)
        self.settle(place)

    def settle(self, place: Place) -> None:
        """Stand at a place."""
        self.turn_to(place.look)
        if place.row is not None:
            self.rows[place.look] = place.row
        if place.now is not None or place.position is None:
            self.now = place.now

    def back(self) -> Place | None:
        """The place before, taken from the stack; None on the first one."""
        if not self.stack:
            return None
        place = self.stack.pop()
        self.settle(place)
        return place

    def turn_bookmark(self) -> bool:
        """Keep this place or, where it is kept, drop it; True when it is kept now."""
        if self.here in self.bookmarks:
            self.bookmarks.remove(self.here)
            return False
        self.bookmarks.append(self.here)
        return True
