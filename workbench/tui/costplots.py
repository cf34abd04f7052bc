"""The graphics of what a load cost: memory over time with its peak, and the time as blocks below each other."""

from __future__ import annotations

from sessions.memory import ProcessMemory, nearest
from workbench.profile.flame import Block
from workbench.tui.paint import Lines, paint, said
from workbench.tui.plots import Box, Scale, braille, icicle

LABEL = 8
HOT_SHARE = 0.1
"""A block of which so much of the whole is its own time is lit."""
_HOT, _HEAD, _PLAIN = "w/h1", "T", "t/h0"


def memory_plot(found: ProcessMemory, width: int, height: int) -> Lines:
    """The resident set from the first to the last look, the stretch in which the peak was reached lit."""
    samples, cells = found.samples, max(8, width - LABEL)
    begin, end = samples[0].t_ns, max(samples[-1].t_ns, samples[0].t_ns + 1)
    values = []
    for dot in range(cells * 2):
        sample = nearest(samples, begin + (end - begin) * dot // (cells * 2 - 1))
        values.append((sample.rss_bytes if sample is not None else 0) / 1e6)
    top = max(found.peak_bytes / 1e6, *values)
    low = min(values) - (top - min(values)) * 0.15
    lines = braille(values, cells, height, Scale(low, top), is_filled=True)
    if found.peak is not None:
        left = (found.peak.from_ns - begin) * cells // (end - begin)
        right = max(left + 1, (found.peak.until_ns - begin) * cells // (end - begin))
        for one in lines:
            one.stylize("w", min(left, cells - 1), min(right, cells))
    marks = {0: f"{top:,.0f}", height - 1: f"{low:,.0f}"}
    heads = [said(marks.get(n, "").rjust(LABEL - 2) + "  ", "f") for n in range(height)]
    return [head.append_text(one) for head, one in zip(heads, lines, strict=True)]


def time_plot(whole: Block, width: int, depth: int) -> Lines:
    """`depth` levels of blocks below the whole; what is narrower than two cells is left blank."""
    total = whole.ns or 1.0
    rows: list[list[Box]] = [[] for _ in range(depth)]
    for level, start, block in whole.walk():
        if not 1 <= level <= depth or block.ns / total * width < 2:
            continue
        role = _HEAD if level == 1 else _HOT if block.own_ns > HOT_SHARE * total else _PLAIN
        rows[level - 1].append(Box(start / total, (start + block.ns) / total, _short(block.name), role))
    return icicle([row for row in rows if row], width)


def _short(name: str) -> str:
    """`model.layers.3` → `layers.3`, `load_weights itself` as it is."""
    return name if " " in name else ".".join(name.split(".")[-2:])


def zoomed(block: Block, width: int) -> Lines:
    """One block and all levels below it, and then its parts by name, the longest of each level first."""
    lines = time_plot(block, width, 6)
    lines.append(said(""))
    lines += _parts(block, 0, block.ns or 1.0)
    return lines


def _parts(block: Block, level: int, whole: float) -> Lines:
    lines: Lines = []
    for inner in sorted(block.inner.values(), key=lambda one: -one.ns):
        if inner.ns < whole * 0.002:
            continue
        calls = f"{inner.calls:,} ×" if inner.calls else ""
        name = inner.name
        while len(inner.inner) == 1 and not inner.own_ns:  # a chain is one line
            (inner,) = inner.inner.values()  # noqa: PLW2901 - its last block is what is told
            name = f"{name} · {inner.name}"
        took, part = f"{inner.ns / 1e6:>10,.2f} ms", f"{100 * inner.ns / whole:>5.1f} %"
        lines.append(paint("{m|$}  {f|$}  {f|$}  $", took, part, calls.rjust(9), "  " * level + name))
        lines += _parts(inner, level + 1, whole)
    return lines
