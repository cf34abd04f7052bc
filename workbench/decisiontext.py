"""Why each module got its method and its kernels: as lines of text, and as the object that `--json` prints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sessions.decisions import DecisionView
from sessions.kernels import ChosenKernel

LABEL = 9
MOST_STORED = 6
WHOLE = "(the whole model)"
Told = tuple[DecisionView, tuple[int, ...]]
OfNone = tuple[str, tuple[int, ...], tuple[ChosenKernel, ...]]
"""A module that no method was chosen for: its name, the ranks that chose alike, its kernels."""
_SOURCES = {"model": "the model's own table", "fallback": "the fallback table, not the model"}


def lines(found: Sequence[Told], others: Sequence[OfNone], ranks: int) -> list[str]:
    """A record of a few lines for each module, a blank line between them; `ranks` are those of the session."""
    out: list[str] = []
    for view, of_ranks in found:
        mark = "✗ " if view.is_contradiction else ""
        out += ["", f"{mark}{view.module or WHOLE}{_on(of_ranks, ranks)}", *(_row(*row) for row in _record(view))]
    for module, of_ranks, kernels in others:
        out += ["", f"{module or '(no module)'}{_on(of_ranks, ranks)}", *(_row(*row) for row in _kernels(kernels))]
    return out[1:]


def _on(of_ranks: Sequence[int], ranks: int) -> str:
    return "" if len(of_ranks) >= ranks else f"  rank {', '.join(map(str, of_ranks))}"


def _row(label: str, text: str) -> str:
    return f"  {label:<{LABEL}} {text}"


def _record(view: DecisionView) -> Iterator[tuple[str, str]]:
    if view.position >= 0:
        yield from _skip(view)
    if view.method_position >= 0:
        by = f", chosen by {view.config_class}" if view.config_class not in {"", "NoneType"} else ""
        yield "method", f"{view.method} for {view.layer_class}{by}"
        yield "", view.method_where
    yield from _kernels(view.kernels)
    for tensor in view.header[:MOST_STORED]:
        beside = f" with {', '.join(tensor.companions)}" if tensor.companions else ", nothing beside it"
        yield "stored", f"{tensor.dtype} {list(tensor.shape)}{beside}  {tensor.name}"
    if len(view.header) > MOST_STORED:
        yield "", f"and {len(view.header) - MOST_STORED} more weights"
    if view.built:
        against = ", which contradicts what is stored" if view.is_contradiction else ""
        made = ", dequantized as it was loaded" if view.is_dequantized else ""
        yield "built", f"{view.built}{made}{against}"


def _skip(view: DecisionView) -> Iterator[tuple[str, str]]:
    verdict = "left as it is" if view.is_skipped else "quantized"
    size = len(view.ignored)
    if view.matched:
        yield "skip", f'{verdict}: entry {view.matched_entry} of {size} matched, "{view.matched}"'
    else:
        yield "skip", f"{verdict}: {'the list is empty' if not size else f'none of {size} entries matched'}"
    for number, name in enumerate(view.tried):
        yield "" if number else "tried", name
    if view.is_expanded:
        yield "expanded", f"from {_SOURCES.get(view.expansion_source, view.expansion_source or 'a table not told')}"
    if view.hidden_entry >= 0:
        yield "untried", f'entry {view.hidden_entry}, "{view.ignored[view.hidden_entry]}", names it'
    yield "rule", f"{view.rule}  {view.where}"


def _kernels(kernels: Sequence[ChosenKernel]) -> Iterator[tuple[str, str]]:
    for one in kernels:
        yield "kernel", str(one)
        for reason in one.refused:
            yield "", f"not {reason}"


def as_json(found: Sequence[Told], others: Sequence[OfNone]) -> list[dict[str, object]]:
    """One object a module, in the order of the text."""
    return [_told(view, ranks) for view, ranks in found] + [
        {"module": module, "ranks": list(ranks), "kernels": _told_kernels(kernels)} for module, ranks, kernels in others
    ]


def _told(view: DecisionView, ranks: Sequence[int]) -> dict[str, object]:
    has_skip, has_method = view.position >= 0, view.method_position >= 0
    skip = {
        "is_skipped": view.is_skipped,
        "tried": list(view.tried),
        "expansion_source": view.expansion_source,
        "entries": len(view.ignored),
        "matched_entry": view.matched_entry,
        "matched": view.matched,
        "untried_entry": view.hidden_entry,
        "rule": view.rule,
        "where": view.where,
    }
    method = {
        "class": view.method,
        "layer_class": view.layer_class,
        "config_class": view.config_class,
        "where": view.method_where,
    }
    return {
        "module": view.module,
        "ranks": list(ranks),
        "skip": skip if has_skip else None,
        "method": method if has_method else None,
        "kernels": _told_kernels(view.kernels),
        "stored": [
            {"name": t.name, "dtype": t.dtype, "shape": list(t.shape), "companions": list(t.companions)}
            for t in view.header
        ],
        "built": view.built,
        "is_dequantized": view.is_dequantized,
        "is_contradiction": view.is_contradiction,
    }


def _told_kernels(kernels: Sequence[ChosenKernel]) -> list[dict[str, object]]:
    return [{"op": k.op, "kernel": k.kernel, "refused": list(k.refused), "where": k.where} for k in kernels]
