"""Measures two recorded runs and their checkpoints against each other: pairs, gathers, and fills a Comparison."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sessions.tensors import KeptTensor, TensorFile
from workbench.compare import gathering
from workbench.compare.capture import Side, kind_of, layer_of
from workbench.compare.comparison import OutputRow, WeightRow
from workbench.compare.metrics import Measure, measure, noise_map
from workbench.compare.pairing import Pair, Port, Unpaired, WeightPair, pair_outputs, pair_weights
from workbench.compare.weights import Checkpoint

Array = npt.NDArray[Any]
Progress = Callable[[str, int, int], None]

_MOST_INPUTS = 8
_MOST_NAMED = 4
"""Of many experts, which are stored alike, the first."""
GRID_ROWS, GRID_COLUMNS = 12, 40
_EPSILON = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
"""Distance between 1 and the next value; a float8 output counts as a quantized one."""
_ROUNDINGS = 2.0
_LEAST_ROUNDOFF = 1e-10
"""Sums in another order differ by more than the last bit."""


class Outputs:
    """Reads, gathers and measures outputs of two sides; what was measured once is not measured again."""

    def __init__(self, reference: Side, candidate: Side, stored: tuple[Checkpoint, Checkpoint]) -> None:
        self._sides, self._checkpoints = (reference, candidate), stored
        self._files: dict[Path, TensorFile] = {}
        self._known_inputs: dict[tuple[str, str], tuple[float | None, int]] = {}

    def measured(self, progress: Progress) -> tuple[tuple[OutputRow, ...], tuple[Unpaired, ...]]:
        """A row for each pair of outputs that could be put together, and what could not be paired."""
        pairs, unpaired = pair_outputs(*self._sides)
        rows: list[OutputRow] = []
        left: list[Unpaired] = []
        for number, pair in enumerate(pairs):
            progress("activations", number, len(pairs))
            row = self._row(pair)
            if isinstance(row, OutputRow):
                rows.append(row)
            elif row is not None:
                left.append(row)
        progress("activations", len(pairs), len(pairs))
        return tuple(rows), (*unpaired, *left)

    def _row(self, pair: Pair) -> OutputRow | Unpaired | None:
        kept = [self._kept(side, port.module, "output", 0) for side, port in self._ported(pair)]
        if not all(kept) or not all(_is_real(one) for parts in kept for one in parts):
            return None
        arrays = self._together(kept, (pair.reference, pair.candidate))
        name = f"{pair.module}[{pair.slot}]" if pair.slot else pair.module
        if arrays is None:
            told = " against ".join(f"{list(parts[0].shape)} on {len(parts)} rank(s)" for parts in kept)
            return Unpaired(name, "both", f"its shapes do not fit each other: {told}")
        reference, candidate, how = arrays
        return OutputRow(
            module=pair.module,
            slot=pair.slot,
            layer=layer_of(pair.module),
            kind=kind_of(pair.module),
            how=how,
            shape=reference.shape,
            measure=measure(reference, candidate),
            input_noise=self._inputs(pair)[0],
            input_odd=self._inputs(pair)[1],
            roundoff=_roundoff([one.dtype for parts in kept for one in parts]),
            format_noise=self._format_noise(pair),
            holds_layers=self._holds_layers(pair.module),
            recomputed_noise=self._recomputed_noise(pair, candidate),
            grid=_grid(reference, candidate),
        )

    def _ported(self, pair: Pair) -> tuple[tuple[Side, Port], tuple[Side, Port]]:
        return (self._sides[0], pair.reference), (self._sides[1], pair.candidate)

    def _kept(self, side: Side, module: str, role: str, index: int) -> tuple[KeptTensor, ...]:
        return side.tensors.get((module, role, index), ())

    def _together(
        self, kept: Sequence[Sequence[KeptTensor]], ports: tuple[Port, Port]
    ) -> tuple[Array, Array, str] | None:
        """Both whole arrays and how the candidate's parts became one; None where the shapes do not fit."""
        read = _prompts([[self._read(one) for one in own] for own in kept])
        parts = [self._slot_of(own, port) for own, port in zip(read, ports, strict=True)]
        return _joined(parts[0], parts[1])

    def _inputs_together(self, kept: Sequence[Sequence[KeptTensor]], pair: Pair) -> tuple[Array, Array] | None:
        """The same for an input: slot by slot where it is as wide as the slots of its module."""
        parts = _prompts([[self._read(one) for one in own] for own in kept])
        slots = [side.slots.get(port.module, ()) for side, port in self._ported(pair)]
        split = [
            [gathering.split_slots(part, [slot.size for slot in own]) for part in arrays]
            for arrays, own in zip(parts, slots, strict=True)
        ]
        if not all(slots) or len(slots[0]) != len(slots[1]) or any(one is None for own in split for one in own):
            joined = _joined(parts[0], parts[1])
            return None if joined is None else joined[:2]
        wholes = []
        for number in range(len(slots[0])):
            left, right = ([one[number] for one in own if one is not None] for own in split)
            joined = _joined(left, right)
            if joined is None:
                return None
            wholes.append(joined)
        return np.concatenate([one[0] for one in wholes], axis=-1), np.concatenate([one[1] for one in wholes], axis=-1)

    def _slot_of(self, parts: list[Array], port: Port) -> list[Array]:
        if port.slot is None:
            return parts
        slots = self._sizes(port, parts[0])
        split = [gathering.split_slots(part, slots) for part in parts]
        return [one[port.slot.number] for one in split if one is not None]

    def _sizes(self, port: Port, part: Array) -> list[int]:
        for side in self._sides:
            slots = side.slots.get(port.module, ())
            if sum(slot.size for slot in slots) == part.shape[-1] and port.slot in slots:
                return [slot.size for slot in slots]
        return []

    def _inputs(self, pair: Pair) -> tuple[float | None, int]:
        """Typical noise of the worst input, None without any; and how many elements are finite on one side only."""
        key = (pair.reference.module, pair.candidate.module)
        if key not in self._known_inputs:
            found: list[Measure] = []
            for index in range(_MOST_INPUTS):
                kept = [self._kept(side, port.module, "input", index) for side, port in self._ported(pair)]
                if all(kept) and all(_is_real(one) for parts in kept for one in parts):
                    arrays = self._inputs_together(kept, pair)
                    found += [] if arrays is None else [measure(*arrays)]
            noise = max((one.typical_noise for one in found), default=None)
            self._known_inputs[key] = noise, sum(one.odd for one in found)
        return self._known_inputs[key]

    def _recomputed_noise(self, pair: Pair, output: Array) -> float | None:
        """The candidate's output beside its own input times the one weight on disk that it is filled from."""
        sources = self._sources(1, pair)
        kept = [self._kept(one, each.module, "input", 0) for one, each in self._ported(pair)]
        if len(sources) != 1 or output.ndim != 2 or not all(kept) or not _is_real(kept[1][0]):
            return None
        inputs = self._inputs_together(kept, pair)
        linear = self._checkpoints[1].linear(sources[0])
        if inputs is None or linear is None or linear[0].shape != (output.shape[-1], inputs[1].shape[-1]):
            return None
        made = inputs[1].astype(np.float64) @ linear[0].T.astype(np.float64)
        return measure(made + (0.0 if linear[1] is None else linear[1]), output).typical_noise

    def _format_noise(self, pair: Pair) -> float:
        """Of the noisiest weight stored in a format that fills the module, or one inside it, on either side."""
        found = [0.0]
        for number, (side, port) in enumerate(self._ported(pair)):
            inside = f"{port.module}."
            for module in side.modules:
                if module == port.module or module.startswith(inside):
                    checkpoint, names = self._checkpoints[number], self._named(number, module)
                    found += [checkpoint.format_noise(f"{name}.weight") for name in names[:_MOST_NAMED]]
        return max(found)

    def _sources(self, number: int, pair: Pair) -> tuple[str, ...]:
        """Modules on disk that fill a pair's output on one side, by their names in that side's checkpoint."""
        ports = (pair.reference, pair.candidate)
        slots = [ports[n].slot for n in (number, 1 - number)]
        if slots[0] is None:
            return self._named(number, ports[number].module)
        known = [tuple(n for n in slot.sources if self._checkpoints[number].holds(n)) for slot in slots if slot]
        return next((names for names in known if names), ())

    def _named(self, number: int, module: str) -> tuple[str, ...]:
        """The same for a whole module; where a session has the names of a file, those of the other side serve."""
        for side in (self._sides[number], self._sides[1 - number]):
            names = tuple(one for one in side.sources.get(module, ()) if self._checkpoints[number].holds(one))
            if names:
                return names
        return ()

    def _holds_layers(self, module: str) -> bool:
        inside = f"{module}." if module else ""
        return layer_of(module) < 0 and any(
            layer_of(one) >= 0 for one in self._sides[1].modules if one.startswith(inside)
        )

    def _read(self, kept: KeptTensor) -> Array:
        if kept.path not in self._files:
            self._files[kept.path] = TensorFile.open(kept.path)
        return self._files[kept.path].read(kept.name)


def _prompts(parts: list[list[Array]]) -> list[list[Array]]:
    """What ranks of two runs hold, where one run's engine takes a batch of the one prompt: the prompt itself."""
    fewest = min(part.ndim for own in parts for part in own)
    return [[part[0] if part.ndim == fewest + 1 and len(part) == 1 else part for part in own] for own in parts]


def _joined(left: list[Array], right: list[Array]) -> tuple[Array, Array, str] | None:
    """Both sides whole, of one shape, and how the candidate's parts became one; None where that cannot be."""
    if not left or not right:
        return None
    left, right = gathering.distinct(left), gathering.distinct(right)
    whole = None
    if len(left) != len(right) or left[0].shape != right[0].shape:
        whole = gathering.whole_shape(left[0].shape, len(left), right[0].shape, len(right))
        if whole is None:
            return None
    reference, candidate = gathering.gathered(left, whole), gathering.gathered(right, whole)
    if reference is None or candidate is None or reference.values.shape != candidate.values.shape:
        return None
    return reference.values, candidate.values, candidate.how


def _is_real(kept: KeptTensor) -> bool:
    return kept.dtype in _EPSILON or kept.dtype.startswith("float8")


def _roundoff(dtypes: Sequence[str]) -> float:
    coarsest = max((_EPSILON.get(dtype, 0.0) for dtype in dtypes), default=0.0)
    return max(_LEAST_ROUNDOFF, _ROUNDINGS * coarsest**2)


def _grid(reference: Array, candidate: Array) -> tuple[tuple[float | None, ...], ...]:
    cells = noise_map(reference, candidate, GRID_ROWS, GRID_COLUMNS)
    return tuple(tuple(None if np.isposinf(cell) else round(cell, 1) for cell in line) for line in cells)


def measured_weights(
    sides: tuple[Side, Side], checkpoints: tuple[Checkpoint, Checkpoint], progress: Progress
) -> tuple[tuple[WeightRow, ...], tuple[Unpaired, ...]]:
    """A row for each pair of weights of one shape, and what could not be paired."""
    (reference, candidate), (left, right) = sides, checkpoints
    pairs, unpaired = pair_weights(left.weights(), right.weights(), reference.places, candidate.places)
    rows: list[WeightRow] = []
    odd: list[Unpaired] = []
    for number, pair in enumerate(pairs):
        progress("weights", number, len(pairs))
        row = _weight_row(pair, left, right, reference, candidate)
        if isinstance(row, WeightRow):
            rows.append(row)
        else:
            odd.append(row)
    progress("weights", len(pairs), len(pairs))
    for side, checkpoint in (("reference", left), ("candidate", right)):
        odd += [
            Unpaired(name, side, "experts stacked with scales are not dequantized")
            for name in sorted(checkpoint.opaque)
        ]
    return tuple(rows), (*unpaired, *odd)


def _weight_row(
    pair: WeightPair, left: Checkpoint, right: Checkpoint, reference_side: Side, candidate: Side
) -> WeightRow | Unpaired:
    reference, other = left.weight(pair.reference), right.weight(pair.candidate)
    if reference.shape != other.shape:
        told = f"its shapes differ: {list(reference.shape)} against {list(other.shape)}"
        return Unpaired(pair.candidate, "both", told)
    module = pair.candidate.rpartition(".")[0]
    places = candidate.places.get(module) or reference_side.places.get(pair.reference.rpartition(".")[0], frozenset())
    return WeightRow(
        name=pair.candidate,
        modules=tuple(sorted({place[0] for place in places})),
        layer=layer_of(module),
        kind=kind_of(pair.candidate),
        shape=reference.shape,
        measure=measure(reference, other),
        expected_noise=_expected(right.requantized(pair.candidate, reference), reference),
        is_quantized=right.is_quantized(pair.candidate) or left.is_quantized(pair.reference),
    )


def _expected(made: Array | None, reference: Array) -> float | None:
    return None if made is None or made.shape != reference.shape else measure(reference, made).noise
