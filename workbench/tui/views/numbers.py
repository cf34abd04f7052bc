"""The numbers of a tensor in two or three lines: how large, what is odd, what its scales span."""

from __future__ import annotations

from collections.abc import Sequence

from inspectors.probe.events import ValueSummarized
from sessions.numerics import NumericsView
from workbench.tui.paint import Lines, cut, paint, said
from workbench.tui.views.view import blank
from workbench.tui.wording import value


def numbers(views: Sequence[NumericsView], width: int) -> Lines:
    """Those of one parameter or module, the latest summary of each kind, oldest first; [] when none was taken."""
    latest = {(view.when, view.body.role, view.body.index): view for view in views}
    alike: dict[ValueSummarized, list[NumericsView]] = {}
    for view in latest.values():
        alike.setdefault(view.body, []).append(view)
    lines: Lines = []
    for body, held in alike.items():
        label = (
            f"{body.role} {body.index}" if held[0].is_activation else "numbers, " + " and ".join(v.when for v in held)
        )
        lines += [blank(), said(label, "f"), *(cut(line, width) for line in statistics(body, held[0].spread))]
    return lines


def statistics(body: ValueSummarized, spread: float | None = None) -> Lines:
    """Magnitudes, fractions as far as the dtype has a meaning for them, and in vermilion what should not be."""
    told = [("absmax", body.absmax), ("mean", body.mean), ("rms", body.rms)]
    lines = [paint("{m|absmax} $  {m|mean} $  {m|rms} $", *(value(number) for _, number in told))]
    if body.dtype:
        lines.append(paint("{m|from} $ {m|to} $", value(body.minimum), value(body.maximum)))
    if spread is not None:
        lines[-1].append_text(paint("  {m|spread} $ ×", f"{spread:.3g}"))
    shares = [("zeros", body.zero_fraction)]
    if body.dtype:
        shares += [("subnormal", body.subnormal_fraction), ("saturated", body.saturated_fraction)]
    line = paint("")
    for name, fraction in shares:
        if fraction >= 0:
            line.append_text(paint("{m|$$} $ %", "  " if line.plain else "", name, _percent(fraction)))
    odd = [f"{count:,} {word}" for count, word in ((body.nan_count, "NaN"), (body.inf_count, "Inf")) if count]
    return [*lines, line, *([said(f"✗ {', '.join(odd)}", "e")] if odd else [])]


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}" if fraction >= 0.001 else f"{100 * fraction:.2g}"
