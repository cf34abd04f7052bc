"""Painting lines of text: one-letter roles, values that stay text whatever they hold, and cutting to a width."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from rich.cells import cell_len
from rich.text import Text

Lines = list[Text]

_MARK = re.compile(r"\{([A-Za-z]\w*)\|([^{}]*)\}|([^{}$]+|\$|[{}])")
_NOTHING = object()
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def printable(value: object) -> str:
    """The value as text on one line: control, direction and invisible characters are shown escaped."""
    text = str(value)
    if text.isascii() and text.isprintable():
        return text
    return "".join(c.encode("unicode_escape").decode() if unicodedata.category(c) in _HIDDEN else c for c in text)


def said(value: object, role: str = "t") -> Text:
    """One value in one role; a Text is taken as it is."""
    if isinstance(value, Text):
        return value
    return Text(printable(value), role, no_wrap=True, end="")


def paint(template: str, *values: object) -> Text:
    """`{e|text}` takes role `e`, `$` takes the next value; a value is never read as markup.

    ValueError when values and `$` differ in number.
    """
    given = iter(values)
    line = Text(no_wrap=True, end="")
    for match in _MARK.finditer(template):
        role, inside, outside = match[1] or "t", match[2], match[3]
        _append(line, inside if outside is None else outside, role, given)
    if next(given, _NOTHING) is not _NOTHING:
        raise ValueError(f"more values than $ in {template!r}")
    return line


def _append(line: Text, piece: str, role: str, given: Iterator[object]) -> None:
    for number, part in enumerate(piece.split("$")):
        if number:
            try:
                line.append_text(said(next(given), role))
            except StopIteration:
                raise ValueError(f"fewer values than $ at {piece!r}") from None
        if part:
            line.append(part, role)


def cut(text: Text, width: int, *, keeps_end: bool = False, shrinks: int = 0) -> Text:
    """The text in at most `width` cells, with `…` where something is missing.

    `keeps_end` takes it out after the indent: of a dotted name the end is what differs. A text whose own `overflow` is
    "ellipsis" loses its end all the same.
    `shrinks` is how many cells of the indent give way first.
    """
    if text.cell_len <= width:
        return text
    if not keeps_end or text.overflow == "ellipsis":
        copy = text.copy()
        copy.truncate(max(width, 0), overflow="ellipsis")
        return copy
    spare = min(len(text.plain) - len(text.plain.lstrip()), shrinks, text.cell_len - width)
    text = text[spare:] if spare > 0 else text
    if text.cell_len <= width:
        return text
    lead = len(text.plain) - len(text.plain.lstrip()) + (2 if text.plain.lstrip()[1:2] == " " else 0)
    room = max(0, width - lead - 1)
    tail = text[len(text) - room :] if room else Text()
    return Text.assemble(text[:lead], ("…", "f"), tail, no_wrap=True, end="")


def padded(text: Text, width: int, *, is_right: bool = False) -> Text:
    """The text filled with blanks to `width` cells."""
    room = " " * max(0, width - text.cell_len)
    return Text.assemble(room, text) if is_right else Text.assemble(text, room)


def ends(left: Text, right: Text, width: int) -> Text:
    """Two ends of one line; the left one gives way."""
    left = cut(left, max(0, width - right.cell_len - (2 if right.cell_len else 0)))
    return Text.assemble(left, " " * max(0, width - left.cell_len - right.cell_len), right, no_wrap=True, end="")


def wrapped(text: str, width: int, role: str = "t", indent: str = "") -> Lines:
    """Running text in lines of at most `width` cells; a word longer than a line is broken, none is dropped."""
    width = max(8, width)
    lines: Lines = []
    for paragraph in str(text).splitlines() or [""]:
        lines.extend(_paragraph(printable(paragraph), width, role, indent))
    return lines


def _paragraph(text: str, width: int, role: str, indent: str) -> Lines:
    lines, line = [], indent
    for word in text.split(" "):
        rest = word
        if line.strip() and cell_len(line) + 1 + cell_len(rest) > width:
            lines.append(line)
            line = indent
        line += (" " if line != indent else "") + rest
        while cell_len(line) > width:
            lines.append(line[:width])
            line = indent + line[width:]
    return [Text(one, role, no_wrap=True, end="") for one in [*lines, line]]
