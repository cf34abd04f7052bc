"""How fast quantized weights become floats: `python tests/benchmarks/dequantize_speed.py [--formats] [--json]`.

Contenders write into memory whose pages are there: C into one result, the library gguf into pieces that stay in the
caches. "New memory" is what an operator returns: it pays for the pages of its result, as torch does.
`--formats` leaves the ggml types out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import gguf
import numpy as np
import torch
from gguf.constants import GGML_QUANT_SIZES
from paired import describe_machine, measured, pinned, report

from backends.native.kernels.compiled import library
from backends.native.kernels.compiled.dequantize_gguf import dequantize_gguf
from backends.native.kernels.compiled.dequantize_mxfp4 import dequantize_mxfp4
from backends.native.kernels.compiled.dequantize_nvfp4 import dequantize_nvfp4
from backends.native.kernels.compiled.fp8_blocks import dequantize_blocks
from backends.native.kernels.compiled.library import function
from backends.native.kernels.compiled.rows import Int64, address, code_of
from backends.native.kernels.reference.dequantize_gguf import dequantize_gguf as gguf_reference
from backends.native.kernels.reference.dequantize_mxfp4 import dequantize_mxfp4 as mxfp4_reference
from backends.native.kernels.reference.dequantize_nvfp4 import dequantize_nvfp4 as nvfp4_reference
from backends.native.kernels.reference.fp8_block_linear import dequantize_blocks as blocks_reference

ROWS, COLUMNS = 4096, 8192
GGUF_TYPES = ("Q4_K", "Q5_K", "Q6_K", "Q8_0", "Q4_0", "IQ4_XS", "MXFP4")
LIBRARY_PIECE = 256
"""Rows that the library gguf is given at once: its steps then stay in the caches, and its results' pages are reused."""


def memcpy(size_bytes: int) -> Callable[[], object]:
    """Copies as many bytes as a contender writes."""
    source, target = torch.ones(size_bytes, dtype=torch.uint8), torch.zeros(size_bytes, dtype=torch.uint8)
    return lambda: target.copy_(source)


def by_library(blocks: np.ndarray, name: str) -> Callable[[], object]:
    """The library gguf, whose results are copied into one place so that no call pays for new pages."""
    kind = gguf.GGMLQuantizationType[name]
    pieces = [blocks[start : start + LIBRARY_PIECE] for start in range(0, ROWS, LIBRARY_PIECE)]
    return lambda: [gguf.dequantize(piece, kind) for piece in pieces]


def in_c(blocks: torch.Tensor, name: str, dtype: torch.dtype) -> Callable[[], object]:
    """The C function alone, into memory that is there."""
    elements, size = GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
    run, output = function(f"dequantize_{name.lower()}"), torch.zeros(ROWS, COLUMNS, dtype=dtype)
    count = Int64(blocks.numel() // size)
    if run is None or count.value * elements != ROWS * COLUMNS:
        raise SystemExit(f"no C kernels: {library.why_not()}")
    return lambda: run(address(blocks), count, address(output), code_of(dtype))


def ggml_type(name: str) -> None:
    kind = gguf.GGMLQuantizationType[name]
    elements, size = GGML_QUANT_SIZES[kind]
    shape = (ROWS, COLUMNS // elements * size)
    # Bytes below 64 make no half float that is not finite, whose products would raise warnings.
    blocks = np.random.default_rng(0).integers(0, 64, shape, dtype=np.uint8)
    given = torch.from_numpy(blocks)
    contenders: dict[str, Callable[[], object]] = {
        "gguf-py to float32": by_library(blocks, name),
        "C to float32": in_c(given, name, torch.float32),
        "C to bfloat16": in_c(given, name, torch.bfloat16),
        "C to bfloat16, new memory": lambda: dequantize_gguf(given, kind.value, torch.bfloat16),
        "torch to float32": lambda: gguf_reference(given, kind.value, torch.float32),
        "memcpy of float32": memcpy(ROWS * COLUMNS * 4),
    }
    report(measured(f"{name} [{ROWS}, {COLUMNS}]", contenders, ROWS * COLUMNS * 4, "gguf-py to float32", 7))


def blocks_and_groups() -> None:
    codes = torch.randint(0, 127, (ROWS, COLUMNS), dtype=torch.uint8)
    weight, scale = codes.view(torch.float8_e4m3fn), torch.rand(ROWS // 128, COLUMNS // 128)
    packed = torch.randint(0, 256, (ROWS, COLUMNS // 2), dtype=torch.uint8)
    groups, unit = torch.rand(ROWS, COLUMNS // 16).to(torch.float8_e4m3fn), torch.tensor(0.01)
    exponents, bf16 = torch.randint(110, 130, (ROWS, COLUMNS // 32), dtype=torch.uint8), torch.bfloat16
    run_blocks, run_groups = function("dequantize_fp8_blocks"), function("dequantize_fp4_groups")
    if run_blocks is None or run_groups is None:
        raise SystemExit(f"no C kernels: {library.why_not()}")
    output, meaning = torch.zeros(ROWS, COLUMNS, dtype=bf16), torch.rand(256)
    rows, columns = Int64(ROWS), Int64(COLUMNS)
    blocks = (address(weight), columns, address(scale), rows, columns, Int64(128), Int64(128))
    halves = (address(packed), Int64(COLUMNS // 2))
    nvfp4 = (*halves, address(groups), Int64(COLUMNS // 16), address(meaning), rows, columns)
    mxfp4 = (*halves, address(exponents), Int64(COLUMNS // 32), address(meaning), rows, columns)
    cases: dict[str, dict[str, Callable[[], object]]] = {
        "FP8 blocks of 128 x 128": {
            "C": lambda: run_blocks(*blocks, address(output), code_of(bf16)),
            "C, new memory": lambda: dequantize_blocks(weight, scale, (128, 128), bf16),
            "torch": lambda: blocks_reference(weight, scale, (128, 128)).to(bf16),
        },
        "NVFP4": {
            "C": lambda: run_groups(*nvfp4, Int64(16), address(output), code_of(bf16)),
            "C, new memory": lambda: dequantize_nvfp4(packed, groups, unit, bf16),
            "torch": lambda: nvfp4_reference(packed, groups, unit, bf16),
        },
        "MXFP4": {
            "C": lambda: run_groups(*mxfp4, Int64(32), address(output), code_of(bf16)),
            "C, new memory": lambda: dequantize_mxfp4(packed, exponents, bf16),
            "torch": lambda: mxfp4_reference(packed, exponents, bf16),
        },
    }
    for name, contenders in cases.items():
        contenders["memcpy of bfloat16"] = memcpy(ROWS * COLUMNS * 2)
        work = f"{name} to bfloat16 [{ROWS}, {COLUMNS}]"
        report(measured(work, contenders, ROWS * COLUMNS * 2, "memcpy of bfloat16", 7))


if __name__ == "__main__":
    pinned()
    describe_machine()
    blocks_and_groups()
    for ggml_name in () if "--formats" in sys.argv else GGUF_TYPES:
        ggml_type(ggml_name)
