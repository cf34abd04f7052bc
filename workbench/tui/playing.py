"""Playing a recording: `now` moves forwards by itself, so many events a second."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.timer import Timer

if TYPE_CHECKING:
    from workbench.tui.screens.session import SessionScreen

TICK_S = 0.1
SPEEDS = (10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000)
WHOLE_S = 20
"""About how long a whole session plays at the speed that it begins with."""


class Playing:
    """Moves a screen's `now` in a recording. `speed` is in events a second, 0 until the first time."""

    def __init__(self, screen: SessionScreen) -> None:
        self._screen = screen
        self._timer: Timer | None = None
        self.speed = 0

    @property
    def is_on(self) -> bool:
        """True while `now` moves by itself."""
        return self._timer is not None

    def turn(self) -> None:
        """Play from `now`, from the start where that is the end; or stop."""
        if self.is_on:
            self.stop()
            return
        screen = self._screen
        count = len(screen.session) if screen.session is not None else 0
        if screen.host.state in {"paused", "running"} or count < 2:
            screen.notice("a recording can be played when its host has ended; n and N step")
            return
        if not self.speed:
            self.speed = next((one for one in SPEEDS if one >= count / WHOLE_S), SPEEDS[-1])
        if screen.desk.now is None:
            screen.move_now(0)
        self._timer = screen.set_interval(TICK_S, self.tick)
        screen.draw_frame()

    def stop(self) -> None:
        """Stand still at `now`."""
        if self._timer is not None:
            self._timer.stop()
            self._timer = None
            self._screen.draw_frame()

    def shift(self, by: int) -> None:
        """A speed faster (`by` 1) or slower (-1)."""
        at = SPEEDS.index(self.speed) if self.speed else SPEEDS.index(100)
        self.speed = SPEEDS[max(0, min(len(SPEEDS) - 1, at + by))]
        self._screen.draw_frame()
        self._screen.notice(f"{self.speed:,} events a second", "a")

    def tick(self) -> None:
        """One step on; the end of the recording ends it."""
        screen = self._screen
        if screen.session is None or screen.desk.now is None:
            self.stop()
            return
        target = screen.desk.now + max(1, round(self.speed * TICK_S))
        is_over = target >= len(screen.session) - 1
        screen.move_now(None if is_over else target)
        if is_over:
            self.stop()
