"""The terminal workbench: one app over the start screen and the screens of sessions."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from textual.app import App

from workbench.places import sessions_folder
from workbench.tui.keymap import Keymap
from workbench.tui.launching import Launcher, Replayer
from workbench.tui.lens import Place
from workbench.tui.palette import palette
from workbench.tui.screens.session import SessionScreen
from workbench.tui.screens.start import StartScreen

LEFT = 0


class Workbench(App[int]):
    """Opens a session, or the start screen without one.

    `launcher` starts hosts and `replayer` does a load again; the app itself starts nothing.
    """

    ENABLE_COMMAND_PALETTE = False
    BINDINGS = []
    CSS_PATH = "workbench.tcss"
    TITLE = "loadscope"

    def __init__(
        self,
        session_path: Path | None = None,
        *,
        folder: Path | None = None,
        scenarios: Sequence[tuple[str, str]] = (),
        launcher: Launcher | None = None,
        replayer: Replayer | None = None,
        look: str = "",
        colours: str = "",
        is_ascii: bool = False,
        own_keys: Mapping[str, str] | None = None,
    ) -> None:
        name = colours or ("grey" if "NO_COLOR" in os.environ else "dark")
        self.palette = palette(name, is_ascii=is_ascii)
        super().__init__()
        for variant in ("dark", "light", "grey"):
            self.register_theme(palette(variant).theme())
        self.theme = self.palette.name
        self.keymap = Keymap(own_keys or {})
        self._session_path, self._folder = session_path, folder or sessions_folder()
        self._scenarios, self._launcher, self._look = scenarios, launcher, look
        self.replayer = replayer

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """The style sheet's colours before a theme is chosen."""
        return dict(palette("dark").variables)

    def on_mount(self) -> None:
        """The user's keys, then the first screen."""
        self.set_class(self.palette.is_ascii, "-ascii")
        self.set_keymap(dict(self.keymap.own))
        if self._session_path is None:
            self.push_screen(StartScreen(self._folder, self._scenarios, self._launcher, self.keymap))
        else:
            place = Place(self._look) if self._look else None
            self.push_screen(SessionScreen(self._session_path, self.keymap, place))

    def switch_palette(self) -> None:
        """Dark, light, dark …"""
        name = "dark" if self.palette.name.endswith("light") else "light"
        self.palette = palette(name, is_ascii=self.palette.is_ascii)
        self.theme = self.palette.name

    def leave_session(self) -> None:
        """From a session back to the start, or out."""
        if any(isinstance(one, StartScreen) for one in self.screen_stack):
            self.pop_screen()
        else:
            self.exit(LEFT)


def run(
    session_path: Path | None,
    *,
    launcher: Launcher | None = None,
    replayer: Replayer | None = None,
    scenarios: Sequence[tuple[str, str]] = (),
    sessions_folder: Path | None = None,
    ascii: bool = False,  # noqa: A002 - named as the option is
) -> int:
    """Run until the person leaves; returns the exit code."""
    app = Workbench(
        session_path,
        folder=sessions_folder,
        scenarios=scenarios,
        launcher=launcher,
        replayer=replayer,
        is_ascii=ascii or _needs_ascii(),
    )
    return app.run() or LEFT


def _needs_ascii() -> bool:
    """Linux's own console and terminals without UTF-8 lack the glyphs."""
    encoding = (os.environ.get("LC_ALL") or os.environ.get("LC_CTYPE") or os.environ.get("LANG") or "UTF-8").lower()
    return os.environ.get("TERM") == "linux" or not ("utf-8" in encoding or "utf8" in encoding)


def open_session(folder: Path, replayer: Replayer | None = None) -> int:
    """Open one session."""
    return run(folder, replayer=replayer)
