"""How noisy each output and each weight may be, from input, format and neighbours, and what exceeds that."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Generic, TypeVar

from workbench.compare.comparison import OutputRow, WeightRow
from workbench.compare.metrics import decibels


@dataclass(frozen=True)
class Thresholds:
    """From where on something stands out; every verdict is told with them.

    An output is expected to be as noisy as its input, plus what the format of its weights adds (`format_margin` times
    the format's own noise, since activations are rounded too), plus what its dtype adds, and `neighbours_most_db` more
    at most where the same module of the nearest `neighbours` layers is noisier than that too. What holds modules is
    expected to be as noisy as the noisiest of them. Noise `output_db` above that stands out, and so does noise that
    comes up between two modules, `between_db` above all before it: attention amplifies more than a module does.
    A linear module also stands out when its output is `output_db` further from its own input times its weight on disk
    than is usual for its format, or for the same module of other layers, which may be `recomputed_most_db` above it.
    The model and stacks of layers are not judged: there noise grows from layer to layer.
    A weight stands out `weight_db` above what its format makes of the reference's weight.
    """

    output_db: float = 10.0
    between_db: float = 20.0
    weight_db: float = 6.0
    format_margin: float = 4.0
    neighbours: int = 4
    neighbours_most_db: float = 10.0
    recomputed_most_db: float = 20.0
    least_weight_noise: float = 1e-12


DEFAULT = Thresholds()


Row_co = TypeVar("Row_co", bound=OutputRow | WeightRow, covariant=True)


@dataclass(frozen=True)
class Judged(Generic[Row_co]):
    """One row with what was expected of it; `excess_db` is minus infinity for an exact one, and for one not judged.

    `why` is "" for a row that does not stand out.
    """

    row: Row_co
    order: int
    expected_noise: float
    excess_db: float
    why: str = ""

    @property
    def stands_out(self) -> bool:
        """True when it is one of those to look at."""
        return bool(self.why)

    @property
    def expected_db(self) -> float:
        """The expected SQNR."""
        return decibels(self.expected_noise)


def judged_weight(row: WeightRow, order: int, thresholds: Thresholds) -> Judged[WeightRow]:
    """A weight against what the format makes of the reference; one whose format cannot say is not judged."""
    least = thresholds.least_weight_noise
    expected = math.inf if row.expected_noise is None else row.expected_noise
    excess = _decibels_above(row.measure.noise + least, expected + least)
    why = ""
    if row.measure.odd:
        why = _odd(row.measure.odd)
    elif excess > thresholds.weight_db:
        why = f"SQNR {told_db(row.measure.sqnr_db)}, where its format gives {told_db(decibels(expected))}"
    return Judged(row, order, expected, excess, why)


def judged_outputs(rows: Sequence[OutputRow], thresholds: Thresholds) -> tuple[Judged[OutputRow], ...]:
    """Every output, in the order given, which must be that in which the modules finished."""
    holders = _Holders(rows)
    plain = [_plain_noise(row, holders.inside(row), thresholds) for row in rows]
    above = [_decibels_above(row.measure.typical_noise, noise) for row, noise in zip(rows, plain, strict=True)]
    usual = [_usual_db(rows, above, number, thresholds) for number in range(len(rows))]
    reached, recomputed = _reached(rows, holders, thresholds), _recomputed(rows, thresholds)
    judged = []
    for number, row in enumerate(rows):
        expected = plain[number] * 10 ** (usual[number] / 10)
        excess, why = (
            above[number] - usual[number],
            _odd(row.measure.odd) if row.measure.odd and not row.input_odd else "",
        )
        if not why and excess > thresholds.output_db:
            came = "" if row.input_noise is None else f" from an input of {told_db(decibels(row.input_noise))}"
            measured, wanted = told_db(decibels(row.measure.typical_noise)), told_db(decibels(expected))
            why = f"SQNR {measured}{came}, expected {wanted}"
        if not why and number in reached:
            excess, why = reached[number]
        if not why and number in recomputed:
            excess, why = recomputed[number]
        judged.append(Judged(row, number, expected, excess, why))
    return tuple(judged)


def told_db(value: float) -> str:
    """`31.0 dB`, or `exact`."""
    return "exact" if value == math.inf else f"{value:.1f} dB"


class _Holders:
    """Which rows lie inside which: by their names."""

    def __init__(self, rows: Sequence[OutputRow]) -> None:
        self._inside: dict[str, list[tuple[int, OutputRow]]] = defaultdict(list)
        self.numbers: dict[str, int] = {}
        modules = {row.module for row in rows}
        for number, row in enumerate(rows):
            self.numbers.setdefault(row.module, number)
            for outer in _prefixes(row.module):
                if outer in modules:
                    self._inside[outer].append((number, row))

    def inside(self, row: OutputRow) -> Sequence[tuple[int, OutputRow]]:
        """Rows of modules that the row's module holds, with their numbers."""
        return self._inside.get(row.module, ())

    def holder(self, row: OutputRow) -> str | None:
        """The innermost module around the row's that has a row."""
        return next((outer for outer in _prefixes(row.module) if outer in self.numbers), None)


def _prefixes(module: str) -> list[str]:
    """`a.b.c` → `a.b`, `a`, ""."""
    parts = module.split(".")
    return [".".join(parts[:end]) for end in range(len(parts) - 1, -1, -1)] if module else []


def _plain_noise(row: OutputRow, inside: Sequence[tuple[int, OutputRow]], thresholds: Thresholds) -> float:
    """What the row's own input, dtype, format and modules explain; everything for what holds layers."""
    if row.holds_layers:
        return math.inf
    own = (row.input_noise or 0.0) + row.roundoff + thresholds.format_margin * row.format_noise
    return max(own, max((one.measure.typical_noise for _, one in inside), default=0.0))


def _usual_db(rows: Sequence[OutputRow], above: Sequence[float], number: int, thresholds: Thresholds) -> float:
    """What neighbours show to be usual for such a module; one alone shows nothing, and plain modules have no excuse."""
    row = rows[number]
    if not row.format_noise:
        return 0.0
    near = sorted(
        (abs(one.layer - row.layer), above[n])
        for n, one in enumerate(rows)
        if n != number and (one.kind, one.slot) == (row.kind, row.slot)
    )[: thresholds.neighbours]
    usual = median(excess for _, excess in near) if len(near) > 1 else 0.0
    return max(0.0, min(usual, thresholds.neighbours_most_db))


def _reached(rows: Sequence[OutputRow], holders: _Holders, thresholds: Thresholds) -> Mapping[int, tuple[float, str]]:
    """Holders inside which noise comes up between two modules: their number, the excess, and where."""
    found: dict[int, tuple[float, str]] = {}
    for number, row in enumerate(rows):
        holder = holders.holder(row)
        at = holders.numbers.get(holder, -1) if holder is not None else -1
        if at < 0 or rows[at].holds_layers or not row.input_noise:
            continue
        before = [one.measure.typical_noise for n, one in holders.inside(rows[at]) if n < number and _apart(one, row)]
        known = max([rows[at].input_noise or 0.0, *before]) + row.roundoff
        excess = _decibels_above(row.input_noise, known)
        if excess > thresholds.between_db and excess > found.get(at, (0.0, ""))[0]:
            reaches, was = told_db(decibels(row.input_noise)), told_db(decibels(known))
            leaf = row.module.rpartition(".")[2]
            found[at] = (excess, f"SQNR {reaches} in what goes into {leaf}, from {was} in all before it")
    return found


def _recomputed(rows: Sequence[OutputRow], thresholds: Thresholds) -> Mapping[int, tuple[float, str]]:
    """Linear modules whose output is not their input times their weight on disk: their number, the excess, and why.

    What a kernel adds does not grow with depth, so all modules of one format are neighbours.
    """
    by_format: dict[float, list[float]] = defaultdict(list)
    by_kind: dict[tuple[str, str], list[tuple[int, float]]] = defaultdict(list)
    for number, row in enumerate(rows):
        if row.recomputed_noise is not None:
            by_format[row.format_noise].append(row.recomputed_noise)
            by_kind[row.kind, row.slot].append((number, row.recomputed_noise))
    found: dict[int, tuple[float, str]] = {}
    for number, row in enumerate(rows):
        if row.recomputed_noise is None:
            continue
        own, most = thresholds.format_margin * row.format_noise, 10 ** (thresholds.recomputed_most_db / 10)
        others = [noise for n, noise in by_kind[row.kind, row.slot] if n != number]
        alike = min(median(others), most * row.format_noise) if others else 0.0
        usual = max(min(median(by_format[row.format_noise]), own), alike) + row.roundoff
        excess = _decibels_above(row.recomputed_noise, usual)
        if excess > thresholds.output_db:
            measured, wanted = told_db(decibels(row.recomputed_noise)), told_db(decibels(usual))
            found[number] = excess, f"SQNR {measured} beside its input times its weight on disk, expected {wanted}"
    return found


def _apart(one: OutputRow, row: OutputRow) -> bool:
    return one.module != row.module and not one.module.startswith(f"{row.module}.")


def _decibels_above(noise: float, expected: float) -> float:
    if noise <= 0 or math.isinf(expected):
        return -math.inf
    return math.inf if math.isinf(noise) or expected <= 0 else 10 * math.log10(noise / expected)


def _odd(count: int) -> str:
    return f"{count:,} elements are NaN or infinite on one side only"
