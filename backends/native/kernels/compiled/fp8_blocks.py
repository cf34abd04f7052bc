"""Blocks of float8 elements with one scale each, dequantized in C."""

from __future__ import annotations

import torch
from torch import Tensor

from backends.native.errors import ShapeError
from backends.native.kernels.compiled.library import function
from backends.native.kernels.compiled.rows import Int64, address, code_of, in_shares, new_output, rows_in_memory
from backends.native.kernels.reference.fp8_block_linear import dequantize_blocks as reference


def dequantize_blocks(weight: Tensor, scale: Tensor, block: tuple[int, int] | list[int], dtype: torch.dtype) -> Tensor:
    """e4m3 [N, K] times its blocks' `scale` [ceil(N / block_n), ceil(K / block_k)] in `dtype`, rounded once.

    Of other dtypes or devices, and without a compiler, the reference. Raises ShapeError for too few or many scales.
    """
    run = function("dequantize_fp8_blocks") if weight.dtype == torch.float8_e4m3fn and weight.is_cpu else None
    if run is None:
        return reference(weight, scale, block).to(dtype)
    (rows, columns), (block_n, block_k) = weight.shape, block
    expected = (-(-rows // block_n), -(-columns // block_k))
    if scale.shape != expected:
        raise ShapeError(
            f"a weight {list(weight.shape)} in blocks of {list(block)} has {list(scale.shape)} scales, expected "
            f"{list(expected)}.",
            "compare weight_block_size in config.json with the tensors on disk",
        )
    codes, scales = rows_in_memory(weight.view(torch.uint8)), scale.float().contiguous()
    output = new_output(codes, rows, columns, dtype)
    code, sizes = code_of(output.dtype), (Int64(columns), Int64(block_n), Int64(block_k))

    def share(start: int, count: int) -> None:
        begin, scale_begin = address(codes, start), address(scales, start // block_n)
        run(begin, Int64(codes.stride(0)), scale_begin, Int64(count), *sizes, address(output, start), code)

    in_shares(rows, output, share, unit=block_n)
    return output.to(dtype)
