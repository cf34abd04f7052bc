"""Keys that lay a page over the screen or take something out of it: inspect, copy, palette, help."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from workbench.tui.paint import Lines
from workbench.tui.screens.commands import CommandsScreen
from workbench.tui.screens.element import ElementScreen
from workbench.tui.screens.page import help_page
from workbench.tui.views.view import Page
from workbench.tui.widgets.pane import Pane

if TYPE_CHECKING:
    from workbench.tui.screens.session import SessionScreen


def inspect(screen: SessionScreen) -> None:
    """Everything recorded about the selection; on a host paused in a loader call, its tensor first."""
    chosen = screen.selected()
    if screen.host.is_paused and screen.desk.now is None and screen.desk.look == "timeline":
        screen.app.push_screen(ElementScreen(screen.controlling, screen.keymap))
    elif chosen is None:
        screen.notice("nothing is selected")
    else:
        recorded(screen)


def recorded(screen: SessionScreen) -> None:
    """The page with everything recorded about the selected row."""
    chosen = screen.selected()
    if chosen is not None:
        width = max(40, screen.size.width - 6)
        screen.show_page(Page("everything recorded", chosen[0].recorded(chosen[1], width)))


def copy(screen: SessionScreen) -> None:
    """The detail as text, to the terminal's clipboard."""
    lines = screen.query_one("#detail", Pane).lines
    if not lines:
        screen.notice("nothing to copy")
        return
    screen.app.copy_to_clipboard(_plain(lines))
    screen.notice(f"copied {len(lines)} lines", "a")


def copy_command(screen: SessionScreen) -> None:
    """The command that was recorded."""
    command = screen.snapshot.manifest.command if screen.snapshot is not None else ()
    if not command:
        screen.notice("this session names no command")
        return
    screen.app.copy_to_clipboard(shlex.join(command))
    screen.notice("copied the command of this session", "a")


def _plain(lines: Lines) -> str:
    return "\n".join(line.plain.rstrip() for line in lines) + "\n"


def commands(screen: SessionScreen) -> None:
    """Every action with its key; the chosen one is done."""

    def then(id_: str | None) -> None:
        if id_:
            screen.action_do(id_)

    screen.app.push_screen(CommandsScreen(screen.keymap), then)


def show_help(screen: SessionScreen) -> None:
    """The keys of this screen."""
    screen.show_page(help_page(screen.keymap, screen.desk.look))


def switch_theme(screen: SessionScreen) -> None:
    """Dark or light."""
    switch = getattr(screen.app, "switch_palette", None)
    if switch is not None:
        switch()
        screen.draw()


def redraw(screen: SessionScreen) -> None:
    """Paint everything anew."""
    screen.draw()
    screen.refresh(repaint=True)
