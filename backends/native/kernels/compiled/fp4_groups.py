"""Groups of float4 elements with one scale each, dequantized in C."""

from __future__ import annotations

import torch
from torch import Tensor

from backends.native.errors import ShapeError
from backends.native.kernels.compiled.library import function
from backends.native.kernels.compiled.rows import Int64, address, code_of, in_shares, new_output, rows_in_memory

GROUPS = (16, 32)
BYTES = torch.arange(256, dtype=torch.uint8, device="cpu")


def dequantize_groups(packed: Tensor, scale: Tensor, meaning: Tensor, group: int, dtype: torch.dtype) -> Tensor | None:
    """uint8 [N, K / 2] and one scale byte per `group` (16 or 32) elements, [N, K / group] -> [N, K] in `dtype`.

    `meaning` float32 [256] says which number a scale byte stands for. None where C cannot do it: another device or
    another dtype of the packed elements, or no compiler. Raises ShapeError for scales that do not fit the elements.
    """
    is_fit = packed.is_cpu and packed.dtype == torch.uint8 and packed.dim() == 2 and meaning.shape == (256,)
    run = function("dequantize_fp4_groups") if is_fit else None
    if run is None:
        return None
    rows, columns = packed.shape[0], packed.shape[1] * 2
    if scale.shape != (rows, columns // group) or columns % group:
        raise ShapeError(
            f"float4 elements [{rows}, {columns}] have scales {list(scale.shape)}, expected one per {group}: "
            f"[{rows}, {columns // group}].",
            "compare the group size in config.json with the tensors on disk",
        )
    codes, scales = rows_in_memory(packed), rows_in_memory(scale.view(torch.uint8))
    table = meaning.float().contiguous()
    output = new_output(codes, rows, columns, dtype)
    sizes, code = (Int64(columns), Int64(group)), code_of(output.dtype)

    def share(start: int, count: int) -> None:
        run(
            *(address(codes, start), Int64(codes.stride(0)), address(scales, start), Int64(scales.stride(0))),
            *(address(table), Int64(count), *sizes, address(output, start), code),
        )

    in_shares(rows, output, share)
    return output.to(dtype)
