"""A page of source code around the line that a tracepoint named."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.text import Text

from workbench.tui.paint import Lines, paint, printable, said, wrapped
from workbench.tui.views.view import Page

MOST_BYTES = 2_000_000
BEFORE, FARTHEST = 16, 80


def source_page(title: str, where: str, why: Lines) -> Page:
    """The file of `where` ("path:line") with its line marked, below what is to be said about it."""
    name, _, number = where.rpartition(":")
    path = _found(name)
    if path is None or not number.isdigit():
        gone = f"The source of {where or 'this decision'} is not on this machine; what it decided is recorded above."
        return Page(title, [*why, Text(), *wrapped(gone, 100, "m")])
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    chosen = int(number)
    first = _function_around(lines, chosen)
    code = [_line(n, text, is_chosen=n == chosen) for n, text in enumerate(lines, 1) if n >= first]
    return Page(title, [*why, Text(), paint("{f|$}", where), *code], len(why) + 2 + chosen - first)


def _function_around(lines: Sequence[str], chosen: int) -> int:
    """The number of the line at which the function of a line begins, or of one a little before it."""
    for number in range(min(chosen, len(lines)), max(0, chosen - FARTHEST), -1):
        if lines[number - 1].lstrip().startswith(("def ", "async def ")):
            return number
    return max(1, chosen - BEFORE)


def _line(number: int, text: str, *, is_chosen: bool) -> Text:
    shown = printable(text.expandtabs(4))
    if is_chosen:
        return paint("{a|▌}{a|$}  {b|$}", f"{number:>5}", shown)
    return Text.assemble(" ", said(f"{number:>5}  ", "f"), said(shown, "m"), no_wrap=True, end="")


def _found(name: str) -> Path | None:
    """The file itself, or the shortest path on sys.path that ends in it; only Python source is ever opened."""
    if not name.endswith(".py"):
        return None
    candidates = [Path(name)] if Path(name).is_absolute() else [Path(one) / name for one in sys.path if one]
    return next((path for path in candidates if _is_source(path)), None)


def _is_source(path: Path) -> bool:
    try:
        return path.is_file() and path.stat().st_size < MOST_BYTES
    except OSError:  # a path from a recording may be anything
        return False
