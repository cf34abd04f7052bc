"""Reads the tensors that a session kept in `tensors/`; every offset of a file is checked before it is used."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from inspectors.probe.events import TensorKept
from sessions.errors import SessionError
from sessions.session import Session

Array = npt.NDArray[Any]

MAX_HEADER_BYTES = 100 << 20
_PLAIN = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U8": "|u1", "BOOL": "|b1", "F8_E4M3": "|u1", "F8_E5M2": "|u1", "F8_E8M0": "|u1",
}  # fmt: skip
_FILE_NAME = re.compile(r"[A-Za-z0-9._-]+\.safetensors")
_RECORD = "Record the session again at level tensors."


@dataclass(frozen=True)
class KeptTensor:
    """One tensor of a forward pass; `position` is that of its event. `read()` gives its values."""

    module: str
    role: str
    index: int
    rank: int
    forward: int
    dtype: str
    shape: tuple[int, ...]
    position: int
    path: Path
    name: str

    def read(self) -> Array:
        """The values in their shape: float32 for float types of 8 to 32 bits, else as stored. SessionError."""
        return TensorFile.open(self.path).read(self.name)


def kept_tensors(session: Session, forward: int = 0) -> tuple[KeptTensor, ...]:
    """What is kept of forward pass number `forward`, in the order in which it was recorded."""
    return tuple(
        KeptTensor(
            module=body.module,
            role=body.role,
            index=body.index,
            rank=event.rank,
            forward=body.forward,
            dtype=body.dtype,
            shape=body.shape,
            position=event.position,
            path=_inside(session.folder, body.file),
            name=body.name,
        )
        for event in session.of_kinds("tensor.kept")
        if isinstance(body := event.body, TensorKept) and body.forward == forward
    )


def _inside(folder: Path, file: str) -> Path:
    if not _FILE_NAME.fullmatch(file) or file.startswith("."):
        raise SessionError(f"{folder}: {file!r} is no name of a file in tensors/", _RECORD)
    return folder / "tensors" / file


@dataclass(frozen=True)
class _Place:
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class TensorFile:
    """One safetensors file, mapped into memory when a tensor is read."""

    def __init__(self, path: Path, places: dict[str, _Place], data_start: int) -> None:
        self.path, self._places, self._data_start = path, places, data_start

    @classmethod
    def open(cls, path: Path) -> TensorFile:
        """Read and check the header. SessionError when the file is missing, cut off or malformed."""
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                if size < 8 or length > min(size - 8, MAX_HEADER_BYTES):
                    raise SessionError(
                        f"{path}: its header of {length:,} bytes does not fit in {size:,} bytes", _RECORD
                    )
                header = json.loads(file.read(length))
        except OSError as error:
            raise SessionError(f"{path}: cannot be read: {error.strerror}", _RECORD) from error
        except ValueError as error:
            raise SessionError(f"{path}: its header is not JSON: {error}", _RECORD) from error
        if not isinstance(header, dict):
            raise SessionError(f"{path}: its header is a {type(header).__name__}, expected an object", _RECORD)
        data_bytes = size - 8 - length
        places = {name: _place(path, name, said, data_bytes) for name, said in header.items() if name != "__metadata__"}
        return cls(path, places, 8 + length)

    def read(self, name: str) -> Array:
        """The values of one tensor, copied out of the file. SessionError when the file has none of that name."""
        place = self._places.get(name)
        if place is None:
            raise SessionError(f"{self.path}: no tensor {name!r} among {len(self._places)}", _RECORD)
        stored = np.fromfile(
            self.path, _PLAIN[place.dtype], math.prod(place.shape), offset=self._data_start + place.begin
        )
        return _decoded(stored, place.dtype).reshape(place.shape)


def _place(path: Path, name: str, said: object, data_bytes: int) -> _Place:
    wrong = SessionError(f"{path}: tensor {name!r} is described wrongly: {said!r:.200}", _RECORD)
    if not isinstance(said, dict):
        raise wrong
    dtype, shape, offsets = said.get("dtype"), said.get("shape"), said.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in _PLAIN:
        raise wrong
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise wrong
    begin, end = offsets
    if not begin <= end <= data_bytes or end - begin != math.prod(shape) * np.dtype(_PLAIN[dtype]).itemsize:
        raise wrong
    return _Place(dtype, tuple(shape), begin, end)


def _are_sizes(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(one) is int and one >= 0 for one in value)


def _decoded(stored: Array, dtype: str) -> Array:
    """Types that numpy lacks as float32, exactly; float16 too, so that sums do not overflow."""
    if dtype == "BF16":
        return (stored.astype(np.uint32) << 16).view(np.float32)
    if dtype == "F16":
        return stored.astype(np.float32)
    if dtype in _TABLES:
        table: Array = _TABLES[dtype][stored]
        return table
    return stored


def _small_floats(exponent_bits: int, mantissa_bits: int, bias: int) -> Array:
    """All 256 values of a float of 8 bits with a sign, in the order of their codes, before special codes are set."""
    codes = np.arange(256)
    mantissa = (codes & ((1 << mantissa_bits) - 1)) / (1 << mantissa_bits)
    exponent = (codes >> mantissa_bits) & ((1 << exponent_bits) - 1)
    size = np.where(exponent == 0, mantissa * 2.0 ** (1 - bias), (1 + mantissa) * 2.0 ** (exponent - float(bias)))
    return np.where(codes >> 7, -size, size).astype(np.float32)


def _e4m3() -> Array:
    values = _small_floats(4, 3, 7)
    values[[0x7F, 0xFF]] = np.nan  # the type has no infinity
    return values


def _e5m2() -> Array:
    values = _small_floats(5, 2, 15)
    values[[0x7C, 0xFC]] = np.inf, -np.inf
    values[[*range(0x7D, 0x80), *range(0xFD, 0x100)]] = np.nan
    return values


def _e8m0() -> Array:
    values = np.full(256, np.nan, np.float32)
    values[:0xFF] = 2.0 ** (np.arange(255) - 127.0)
    return values


_TABLES = {"F8_E4M3": _e4m3(), "F8_E5M2": _e5m2(), "F8_E8M0": _e8m0()}
