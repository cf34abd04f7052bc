"""Drives the terminal workbench in tests: waits for what is shown, and reads the screen as text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from workbench.tui.app import Workbench
from workbench.tui.screens.session import SessionScreen

TRIES = 400


def text_of(app: Workbench) -> str:
    """What the terminal shows, line by line."""
    strips = app.screen._compositor.render_strips()
    return "\n".join(strip.text.rstrip() for strip in strips)


class Driver:
    """One app under a pilot."""

    def __init__(self, app: Workbench, pilot) -> None:
        self.app, self.pilot = app, pilot

    @property
    def text(self) -> str:
        return text_of(self.app)

    @property
    def session(self) -> SessionScreen:
        return next(one for one in reversed(self.app.screen_stack) if isinstance(one, SessionScreen))

    async def until(self, test: Callable[[], bool], what: str = "") -> None:
        """Let the app work until `test` holds; the screen is in the error when it never does."""
        for _ in range(TRIES):
            await self.pilot.pause(0.02)
            if test():
                await self.pilot.pause()
                return
        raise AssertionError(f"never: {what or test}\n{self.text}")

    async def shows(self, text: str) -> None:
        await self.until(lambda: text in self.text, f"screen shows {text!r}")

    async def opened(self) -> None:
        await self.until(lambda: self.session.snapshot is not None, "first snapshot")

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.pilot.pause()


class opened_at:  # noqa: N801 - reads as a word in `async with opened_at(…) as it`
    """Opens a session (or the start screen) in a terminal of a size."""

    def __init__(self, path: Path | None, size: tuple[int, int] = (120, 36), **options) -> None:
        self.app = Workbench(path, **options)
        self._test = self.app.run_test(size=size)
        self._path = path

    async def __aenter__(self) -> Driver:
        driver = Driver(self.app, await self._test.__aenter__())
        if self._path is not None:
            await driver.until(lambda: getattr(self.app.screen, "reader", None) is not None, "session screen")
        return driver

    async def __aexit__(self, *error: object) -> None:
        await self._test.__aexit__(*error)
