"""The page of a CI job: which tests left a bundle, and what each shows at first sight."""

from __future__ import annotations

from collections.abc import Sequence

MAX_BYTES = 1_000_000
"""Job pages are cut at 1 MiB."""

MAX_CELL = 2000
_ESCAPED = {"<": "&lt;", ">": "&gt;", "&": "&amp;"} | {c: f"\\{c}" for c in "\\`*_[]|#~"}


def markdown(rows: Sequence[tuple[str, str, str]]) -> str:
    """A table of (test, failure, bundle); as many rows as fit, and how many did not."""
    lines = ["## Loadscope", "", "| test | what failed | bundle |", "|---|---|---|"]
    size = sum(len(line.encode()) + 1 for line in lines)
    for number, row in enumerate(rows):
        line = "| " + " | ".join(_cell(text) for text in row) + " |"
        size += len(line.encode()) + 1
        if size > MAX_BYTES:
            lines += ["", f"{len(rows) - number:,} more tests left a bundle."]
            break
        lines.append(line)
    return "\n".join([*lines, "", "Open one with `loadscope open FILE`.", ""])


def _cell(text: str) -> str:
    """Text that stays in its cell and is no markup; its lines below each other."""
    lines = (" ".join(line.split()) for line in text[:MAX_CELL].splitlines())
    return "<br>".join("".join(_ESCAPED.get(c, c) for c in line) for line in lines if line)
