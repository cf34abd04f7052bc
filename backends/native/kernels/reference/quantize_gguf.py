"""Stores weights in blocks of a ggml type, by rounding to the nearest: enough to synthesize checkpoints."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from backends.native.errors import ShapeError
from backends.native.kernels.reference.ggml_types import BF16, F16, F32, GGML_TYPES, cannot_be_dequantized

FLOATS = {F32: torch.float32, F16: torch.float16, BF16: torch.bfloat16}
BLOCK = 256


def quantize_gguf(weight: Tensor, ggml_type: int) -> Tensor:
    """`weight` [..., columns] of any float dtype -> uint8 [..., row_bytes]; types not done here by the library gguf.

    Raises ShapeError for rows that are no whole blocks, KernelError for a type that nothing quantizes to.
    """
    if ggml_type not in GGML_TYPES:
        raise cannot_be_dequantized(ggml_type)
    known = GGML_TYPES[ggml_type]
    if weight.shape[-1] % known.block_elements:
        raise ShapeError(
            f"a row of {weight.shape[-1]} elements is no whole blocks of {known.name}, which have "
            f"{known.block_elements}.",
            "choose a type with smaller blocks, such as Q8_0",
        )
    if ggml_type in FLOATS:
        return weight.to(FLOATS[ggml_type]).contiguous().view(torch.uint8)
    if known.name not in _QUANTIZERS:
        return _by_library(weight, ggml_type)
    blocks = _QUANTIZERS[known.name](weight.float().reshape(-1, BLOCK))
    return blocks.reshape(*weight.shape[:-1], -1)


def _by_library(weight: Tensor, ggml_type: int) -> Tensor:
    import gguf

    try:
        stored = gguf.quantize(weight.float().numpy(), gguf.GGMLQuantizationType(ggml_type))
    except NotImplementedError as error:
        raise cannot_be_dequantized(ggml_type) from error
    return torch.from_numpy(stored)


def _over(x: Tensor, scale: Tensor) -> Tensor:
    """`x / scale`, 0 where the scale is."""
    return torch.where(scale == 0, 0.0, x / scale)


def _affine(x: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of blocks of 256: halves of scale and minimum [n, 4] bytes, twelve bytes of six bits, quants [n, 8, 32]."""
    groups = x.view(-1, 8, 32)
    minima = (-groups.amin(2)).clamp(min=0)
    scales = (groups.amax(2) + minima).clamp(min=0) / (2**bits - 1)
    halves = (torch.cat((scales.amax(1, keepdim=True), minima.amax(1, keepdim=True)), 1) / 63).half()
    scale, minimum = halves[:, :1].float(), halves[:, 1:].float()
    small = _over(scales, scale).round().clamp(0, 63), _over(minima, minimum).round().clamp(0, 63)
    shifted = groups + (minimum * small[1]).unsqueeze(2)
    quants = _over(shifted, (scale * small[0]).unsqueeze(2)).round().clamp(0, 2**bits - 1)
    return halves.view(torch.uint8), _six_bits(small[0].byte(), small[1].byte()), quants.byte()


def _six_bits(scales: Tensor, minima: Tensor) -> Tensor:
    """Eight scales and eight minima in twelve bytes."""
    first = [part[:, :4] | ((part[:, 4:] >> 4) << 6) for part in (scales, minima)]
    return torch.cat((*first, (scales[:, 4:] & 15) | ((minima[:, 4:] & 15) << 4)), 1)


def _nibble_runs(quants: Tensor) -> Tensor:
    """[n, 8, 32] -> [n, 128]: of two groups one in the low nibbles, the next in the high ones."""
    pairs = (quants & 15).view(-1, 4, 2, 32)
    return (pairs[:, :, 0] | (pairs[:, :, 1] << 4)).flatten(1)


def _q4_k(x: Tensor) -> Tensor:
    halves, scales, quants = _affine(x, 4)
    return torch.cat((halves, scales, _nibble_runs(quants)), 1)


def _q5_k(x: Tensor) -> Tensor:
    halves, scales, quants = _affine(x, 5)
    shifts = torch.arange(8, dtype=torch.uint8).view(8, 1)
    fifth = ((quants >> 4) << shifts).sum(1).byte()
    return torch.cat((halves, scales, fifth, _nibble_runs(quants)), 1)


def _q6_k(x: Tensor) -> Tensor:
    groups = x.view(-1, 16, 16)
    scales = groups.abs().amax(2) / 31
    half = (scales.amax(1, keepdim=True) / 127).half()
    small = _over(scales, half.float()).round().clamp(0, 127)
    quants = (_over(groups, (half.float() * small).unsqueeze(2)).round().clamp(-32, 31) + 32).byte()
    low, high = (quants & 15).view(-1, 2, 2, 64), (quants >> 4).view(-1, 2, 4, 32)
    shifts = torch.arange(0, 8, 2, dtype=torch.uint8).view(4, 1)
    return torch.cat(
        (
            (low[:, :, 0] | (low[:, :, 1] << 4)).flatten(1),
            (high << shifts).sum(2).byte().flatten(1),
            small.byte(),
            half.view(torch.uint8),
        ),
        1,
    )


_QUANTIZERS: dict[str, Callable[[Tensor], Tensor]] = {"Q4_K": _q4_k, "Q5_K": _q5_k, "Q6_K": _q6_k}
