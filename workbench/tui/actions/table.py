"""The handlers of every action, by the ids of the key table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from workbench.tui.actions import going, looking, pages, replaying, stepping
from workbench.tui.keymap import KEYS

if TYPE_CHECKING:
    from workbench.tui.screens.session import SessionScreen

Act = Callable[["SessionScreen"], None]


def _looks() -> dict[str, Act]:
    return {key.id: looking.look(key.word) for key in KEYS if key.group == "questions"}


ACTIONS: Mapping[str, Act] = {
    **_looks(),
    "fold": looking.fold_left,
    "unfold": looking.unfold_right,
    "enlarge": looking.enlarge,
    "focus.other": looking.focus_other,
    "rank.next": looking.next_rank(1),
    "rank.previous": looking.next_rank(-1),
    "search": looking.search,
    "search.next": looking.search_next,
    "filter": looking.filter_rows,
    "trouble": looking.only_trouble,
    "order": looking.order,
    "variant": looking.variant,
    "theme": pages.switch_theme,
    "follow": going.follow,
    "back": going.back,
    "finding.next": going.finding(1),
    "finding.previous": going.finding(-1),
    **{f"evidence.{n}": going.evidence(n) for n in range(1, 10)},
    "bookmark": going.bookmark,
    "bookmark.go": going.to_bookmark,
    "wrote": going.who_wrote,
    "address": going.address,
    **{f"step.{name}": stepping.step(name) for name in stepping.VERBS},
    "step.start": replaying.to_start,
    "step.end": replaying.to_end,
    "step.failure": replaying.to_failure,
    "play": replaying.play,
    "play.faster": replaying.speed(1),
    "play.slower": replaying.speed(-1),
    "replay": replaying.replay,
    "step.breakpoint": stepping.toggle_breakpoint,
    "step.breakpoints": stepping.edit_breakpoints,
    "step.frame_up": stepping.frame_up,
    "step.pause": stepping.pause,
    "release": stepping.release,
    "inspect": pages.inspect,
    "copy": pages.copy,
    "copy.command": pages.copy_command,
    "commands": pages.commands,
    "help": pages.show_help,
    "redraw": pages.redraw,
}
