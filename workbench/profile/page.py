"""The blocks of time as one page for a browser: no file beside it, nothing fetched, every name escaped."""

from __future__ import annotations

import html
import json
from pathlib import Path

from sessions.memory import ProcessMemory
from workbench.profile.flame import Block
from workbench.profile.profile import Profile
from workbench.profile.telling import head, memory
from workbench.profile.units import duration, size

LEAST_SHARE = 1e-5
"""Blocks below this share of the whole are not drawn one by one: a page of a million boxes opens nowhere."""
MUCH = 0.05
_TEMPLATE = Path(__file__).with_name("page.html")
_PLOT_POINTS = 400


def page(profile: Profile) -> str:
    """The whole page. Times are given as they are; a click on a block makes it as wide as the page."""
    whole = profile.blocks
    template = _TEMPLATE.read_text(encoding="utf-8")
    facts = "\n".join(html.escape(line) for line in [*head(profile), "", *memory(profile)])
    parts = {
        "TITLE": html.escape(f"{whole.name} · where the time went"),
        "FACTS": facts,
        "MEMORY": "".join(_plot(one) for one in profile.memory[:1]),
        "BLOCKS": _script(_boxes(whole)),
    }
    for name, text in parts.items():
        template = template.replace(f"<!--{name}-->", text, 1)
    return template


def _boxes(whole: Block) -> list[list[object]]:
    """[level, start ns, ns, name, stage, calls, time in words, 1 where much is its own]; outer boxes first."""
    least, much = whole.ns * LEAST_SHARE, whole.ns * MUCH
    return [
        [
            level,
            round(start),
            round(block.ns),
            block.name,
            block.stage,
            block.calls,
            duration(block.ns),
            int(block.own_ns > much),
        ]
        for level, start, block in whole.walk()
        if block.ns >= least
    ]


def _script(value: object) -> str:
    """JSON that stays inside its script element, whatever a checkpoint's names are."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _plot(found: ProcessMemory) -> str:
    samples = found.samples
    begin, end = samples[0].t_ns, max(samples[-1].t_ns, samples[0].t_ns + 1)
    low, high = min(one.rss_bytes for one in samples), max(found.peak_bytes, samples[0].rss_bytes + 1)
    step = max(1, len(samples) // _PLOT_POINTS)
    points = " ".join(
        f"{1000 * (one.t_ns - begin) / (end - begin):.1f},{100 - 96 * (one.rss_bytes - low) / max(1, high - low):.1f}"
        for one in (*samples[::step], samples[-1])
    )
    peak = found.peak
    mark = ""
    if peak is not None:
        left, right = (1000 * (at - begin) / (end - begin) for at in (peak.from_ns, peak.until_ns))
        mark = f'<rect class="peak" x="{left:.1f}" y="0" width="{max(2.0, right - left):.1f}" height="100"/>'
    words = f"host memory, {size(low)} to {size(high)} over {duration(end - begin)}"
    return (
        f'<figure><figcaption>{words}</figcaption><svg viewBox="0 0 1000 100" preserveAspectRatio="none">'
        f'<polygon points="0,100 {points} 1000,100"/>{mark}</svg></figure>'
    )
