"""What was compared and measured, as values that are saved beside the candidate's session and read back checked."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from sessions.errors import SessionError
from workbench.compare.metrics import Measure
from workbench.compare.pairing import Unpaired

FILE_NAME = "comparison.json"
REFERENCE_FOLDER = "reference"
SCHEMA_VERSION = 1
MAX_FILE_BYTES = 256 << 20

T = TypeVar("T")


@dataclass(frozen=True)
class SideFacts:
    """One run: `folder` is its session, relative to the comparison's folder; `dtype` "" is the checkpoint's own."""

    folder: str
    name: str
    model: str
    format: str
    architecture: str
    tp: int
    device: str
    dtype: str
    engine: str

    @property
    def told(self) -> str:
        """`tiny-fp8 · fp8 block 128×128 · tp 4`."""
        device = self.device if self.device != "cpu" else ""
        return " · ".join(part for part in (self.name, self.format, self.dtype, f"tp {self.tp}", device) if part)

    def differing(self, other: SideFacts) -> str:
        """What this side is where the other is something else: `tiny-bf16 · bfloat16`, `tp 1`."""
        pairs = [(self.name, other.name), (self.format, other.format), (self.dtype, other.dtype)]
        pairs += [(f"tp {self.tp}", f"tp {other.tp}"), (self.device, other.device), (self.engine, other.engine)]
        return " · ".join(own for own, its in pairs if own and own != its) or self.name


@dataclass(frozen=True)
class OutputRow:
    """A module's output, or one slot of it, in the order in which the modules finished.

    `layer` is -1 outside the layers, `kind` the name without the layer; `holds_layers`: the model, or a stack of
    layers. `how` tells how the ranks' parts were put together. `input_noise` is the typical noise of the worst of its
    inputs, None where none was kept, `input_odd` the number of their elements that are finite on one side only.
    `roundoff` is what the dtypes of both sides alone explain, `format_noise` what the format of its weights makes of
    random values, 0 where they are stored plain. `recomputed_noise` is the typical noise of a linear module's output
    beside its own input times its weight on disk: what the load and the kernel add; None for other modules.
    `grid` is SQNR in dB by tokens and channels, null for exact.
    """

    module: str
    slot: str
    layer: int
    kind: str
    how: str
    shape: tuple[int, ...]
    measure: Measure
    input_noise: float | None
    input_odd: int
    roundoff: float
    format_noise: float
    holds_layers: bool
    recomputed_noise: float | None = None
    grid: tuple[tuple[float | None, ...], ...] = ()

    @property
    def name(self) -> str:
        """The module, and the slot in brackets."""
        return f"{self.module}[{self.slot}]" if self.slot else self.module


@dataclass(frozen=True)
class WeightRow:
    """A weight on disk, dequantized. `expected_noise` is what its format makes of the reference's weight, None unknown.

    `modules` are the modules of the model that it filled.
    """

    name: str
    modules: tuple[str, ...]
    layer: int
    kind: str
    shape: tuple[int, ...]
    measure: Measure
    expected_noise: float | None
    is_quantized: bool


@dataclass(frozen=True)
class Comparison:
    """Reference against candidate. Measured facts only: what stands out is judged when it is read."""

    reference: SideFacts
    candidate: SideFacts
    tokens: tuple[int, ...]
    outputs: tuple[OutputRow, ...]
    weights: tuple[WeightRow, ...]
    unpaired: tuple[Unpaired, ...]
    is_same_checkpoint: bool
    schema: int = SCHEMA_VERSION

    def write(self, folder: Path) -> Path:
        """Write `comparison.json` by renaming a complete file; OSError passes through."""
        path = folder / FILE_NAME
        part = path.with_name(f".{FILE_NAME}.{os.getpid()}")
        part.write_text(json.dumps(_plain(asdict(self)), ensure_ascii=False) + "\n", encoding="utf-8")
        part.replace(path)
        return path


def read_comparison(folder: Path) -> Comparison | None:
    """The comparison of a session folder, None where there is none. SessionError when it cannot be read."""
    path = folder / FILE_NAME
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise SessionError(f"{path}: larger than {MAX_FILE_BYTES:,} bytes", "Compare again.")
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw.get("schema", 0) > SCHEMA_VERSION:
            raise SessionError(f"{path}: of schema {raw['schema']!r}, this version reads {SCHEMA_VERSION}", "Upgrade.")
        return _comparison(raw)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise SessionError(f"{path}: cannot be read: {type(error).__name__}: {error}", "Compare again.") from error


def _plain(value: Any) -> Any:
    """Infinity is no number of JSON."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value


def _comparison(raw: dict[str, Any]) -> Comparison:
    return Comparison(
        reference=_made(SideFacts, raw["reference"]),
        candidate=_made(SideFacts, raw["candidate"]),
        tokens=tuple(int(token) for token in raw["tokens"]),
        outputs=tuple(_output(one) for one in raw["outputs"]),
        weights=tuple(_weight(one) for one in raw["weights"]),
        unpaired=tuple(_made(Unpaired, one) for one in raw["unpaired"]),
        is_same_checkpoint=bool(raw["is_same_checkpoint"]),
    )


def _output(raw: dict[str, Any]) -> OutputRow:
    grid = tuple(tuple(None if cell is None else float(cell) for cell in line) for line in raw["grid"])
    own: dict[str, Any] = {"measure": _measure(raw["measure"]), "shape": tuple(map(int, raw["shape"])), "grid": grid}
    own |= {name: _noise(raw.get(name)) for name in ("input_noise", "recomputed_noise")}
    return _made(OutputRow, {**raw, **own})


def _weight(raw: dict[str, Any]) -> WeightRow:
    own = {"measure": _measure(raw["measure"]), "shape": tuple(map(int, raw["shape"]))}
    own |= {"modules": tuple(map(str, raw["modules"])), "expected_noise": _noise(raw["expected_noise"])}
    return _made(WeightRow, {**raw, **own})


def _measure(raw: dict[str, Any]) -> Measure:
    numbers = {key: _noise(value) for key, value in raw.items()}
    whole = {key: int(raw[key]) for key in ("elements", "compared", "odd")}
    return _made(Measure, {**numbers, **whole})


def _noise(value: object) -> float | None:
    return None if value is None else float(value)  # type: ignore[arg-type]  # a wrong type is told by the reader


_CHECKS: dict[str, tuple[type, ...]] = {
    "int": (int,), "str": (str,), "bool": (bool,), "float": (float, int), "float | None": (float, int, type(None)),
}  # fmt: skip


def _made(cls: type[T], raw: dict[str, Any]) -> T:
    """A dataclass from those keys it has; raises TypeError for a missing or mistyped one."""
    known = {}
    for field in fields(cls):  # type: ignore[arg-type]  # T is a dataclass
        if field.name in raw:
            wanted = _CHECKS.get(str(field.type))
            if wanted is not None and not isinstance(raw[field.name], wanted):
                raise TypeError(f"{field.name} is {raw[field.name]!r:.80}, expected {field.type}")
            known[field.name] = raw[field.name]
    return cls(**known)
