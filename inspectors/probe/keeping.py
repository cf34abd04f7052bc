"""Writes tensors of the host into one safetensors file, with the standard library and the tensors' own memory."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inspectors.probe.tensors import dtype_name, shape_of

_DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
    "float8_e8m0fnu": "F8_E8M0",
}  # fmt: skip
_ALIGNMENT_BYTES = 8


def can_keep(tensor: Any) -> bool:
    """True for a dtype that the file format has a name for."""
    return dtype_name(tensor) in _DTYPES


def copied(tensor: Any) -> Any:
    """A contiguous copy in host memory; what the engine does to the tensor afterwards does not reach it."""
    return tensor.detach().to("cpu", copy=True).contiguous()


def write_tensors(path: Path, tensors: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    """Write contiguous CPU tensors under their names by renaming a complete file; OSError passes through."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.nbytes
        shape = list(shape_of(tensor))
        header[name] = {"dtype": _DTYPES[dtype_name(tensor)], "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT_BYTES)
    path.parent.mkdir(exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(len(text).to_bytes(8, "little"))
            file.write(text)
            for tensor in tensors.values():
                file.write(_memory(tensor))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _memory(tensor: Any) -> Any:
    """The bytes of a contiguous CPU tensor, not copied."""
    return (ctypes.c_ubyte * tensor.nbytes).from_address(tensor.data_ptr()) if tensor.nbytes else b""
