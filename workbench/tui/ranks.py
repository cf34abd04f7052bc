"""The line that shows where every rank is, beside the one whose tensors are shown."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from sessions.ranks import RankPlace
from workbench.rankwords import warning, where
from workbench.tui.paint import said

_GLYPHS = {"paused": "‖", "running": "●", "ended": "✗"}


def ranks_line(places: Sequence[RankPlace]) -> tuple[Text, Text] | None:
    """Left: each rank with its state, neighbours that are alike as one; right: when collectives time out.

    None for a session of one host.
    """
    if len(places) < 2:
        return None
    shown = next((place for place in places if place.is_shown), None)
    line = said("ranks", "m")
    for first, last, words in _groups(places, shown):
        line.append("  ", "m")
        name = _name(first) if first is last else f"{_name(first)}–{_name(last)}"
        is_elsewhere = bool(words) and first.state != "ended"
        line.append_text(said(f"▸{name}" if first is shown else name, "b" if first is shown else "t"))
        line.append_text(said(f" {_GLYPHS.get(first.state, '·')}", "a" if first.state == "paused" else "m"))
        line.append_text(said(f" {words}" if words else "", "w" if is_elsewhere else "m"))
    return line, said(warning(places), "w")


def _groups(places: Sequence[RankPlace], shown: RankPlace | None) -> list[tuple[RankPlace, RankPlace, str]]:
    found: list[tuple[RankPlace, RankPlace, str]] = []
    for place in places:
        words = where(place, shown)
        if found and place is not shown and found[-1][0] is not shown and place.rank >= 0:
            first, last, before = found[-1]
            if (first.state, before) == (place.state, words) and last.rank == place.rank - 1:
                found[-1] = (first, place, words)
                continue
        found.append((place, place, words))
    return found


def _name(place: RankPlace) -> str:
    return str(place.rank) if place.rank >= 0 else f"pid {place.pid}"
