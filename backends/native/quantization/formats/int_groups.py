"""INT4 and INT8 in groups of inputs, packed into int32 along the input."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from backends.native.errors import ShapeError
from backends.native.kernels.reference.packed_int_linear import dequantize_packed
from backends.native.kernels.reference.packing import WORD_BITS, pack_int32
from backends.native.quantization.stored import (
    INPUT,
    OUTPUT,
    SHARD,
    Multiply,
    StoredLinearMethod,
    StoredMoEMethod,
    StoredTensor,
    StoredWeight,
    Tensors,
    WeightPart,
)

SMALLEST_SCALE = 1e-7
GROUP_REMEDY = "choose a tp_size that keeps whole groups and words on each rank, or leave this layer unquantized"


def quantize_groups(
    weight: Tensor, bits: int, group_size: int, *, is_symmetric: bool, scale_dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """[N, K] -> unsigned codes [N, K], scales [N, groups] and unsigned zero points [N, groups].

    Symmetric groups have their zero in the middle, 2**(bits - 1); others span from their smallest to their largest.
    """
    groups = weight.float().reshape(weight.shape[0], -1, group_size)
    middle, largest_code = 2 ** (bits - 1), 2**bits - 1
    if is_symmetric:
        scales = groups.abs().amax(2) / (middle - 0.5)
    else:
        low, high = groups.amin(2).clamp(max=0), groups.amax(2).clamp(min=0)
        scales = (high - low) / largest_code
    scales = scales.clamp(min=SMALLEST_SCALE).to(scale_dtype)
    exact = scales.float().unsqueeze(2)
    zeros = torch.full_like(scales, middle, dtype=torch.float32)
    if not is_symmetric:
        zeros = (-low / exact.squeeze(2)).round().clamp(0, largest_code)
    codes = ((groups / exact).round() + zeros.unsqueeze(2)).clamp(0, largest_code)
    return codes.flatten(1).int(), scales, zeros.int()


def columns_by_norm(weight: Tensor, group_size: int) -> tuple[Tensor, Tensor]:
    """An order of the columns, largest first, and the group of each column when groups are filled in that order."""
    order = weight.float().norm(dim=0).argsort(descending=True, stable=True)
    g_idx = torch.empty_like(order, dtype=torch.int32)
    g_idx[order] = (torch.arange(len(order)) // group_size).int()
    return order, g_idx


class PackedIntLinearMethod(StoredLinearMethod):
    """Weight-only reference: dequantizes the groups, leaves the input as it is."""


class PackedIntMoEMethod(StoredMoEMethod):
    """Weight-only experts: dequantizes the chosen ones."""


@dataclass(frozen=True)
class PackedInts(StoredWeight):
    """`weight_packed`, `weight_scale`, `weight_shape`, and zero points and the group of each input where there are any.

    `group_size` None is one group per output channel.
    """

    bits: int
    group_size: int | None
    is_symmetric: bool = True
    has_g_idx: bool = False

    OP = "packed_int_linear"
    LINEAR_METHOD = PackedIntLinearMethod
    MOE_METHOD = PackedIntMoEMethod

    @property
    def per_word(self) -> int:
        """Values in an int32."""
        return WORD_BITS // self.bits

    def tensors(self, part: WeightPart) -> tuple[StoredTensor, ...]:
        """Scales follow the input unless any input may be of any group; then every rank has all of them."""
        size = self.group_size or part.input_size
        is_whole = self.group_size is None or self.has_g_idx
        groups = part.input_size // size if is_whole else INPUT
        stored = [
            StoredTensor("weight_packed", torch.int32, block=(1, self.per_word)),
            StoredTensor("weight_scale", torch.float32, (OUTPUT, groups), block=(1, size)),
            StoredTensor("weight_shape", torch.int64, (SHARD, 2)),
        ]
        if not self.is_symmetric:
            stored.append(StoredTensor("weight_zero_point", torch.int32, (OUTPUT, groups), block=(self.per_word, size)))
        if self.has_g_idx:
            stored.append(StoredTensor("weight_g_idx", torch.int32, (SHARD, INPUT)))
        return tuple(stored)

    def require_shape(self, part: WeightPart) -> None:
        """Raise ShapeError for a group or a word that is cut."""
        is_grouped = self.group_size is not None and not self.has_g_idx
        part.require_divisible(
            output=1 if self.is_symmetric else self.per_word,
            input=max(self.per_word, self.group_size or 0) if is_grouped else self.per_word,
            remedy=GROUP_REMEDY,
        )

    def quantize(self, weight: Tensor) -> dict[str, Tensor]:
        """Scales in the dtype of the weight; with groups in any order, columns are taken by their size."""
        size = self.group_size or weight.shape[1]
        order, g_idx = columns_by_norm(weight, size)
        ordered = weight[:, order] if self.has_g_idx else weight
        codes, scales, zeros = quantize_groups(
            ordered, self.bits, size, is_symmetric=self.is_symmetric, scale_dtype=weight.dtype
        )
        stored = {
            "weight_packed": pack_int32(codes[:, order.argsort()] if self.has_g_idx else codes, self.bits, 1),
            "weight_scale": scales,
            "weight_shape": torch.tensor(weight.shape),
        }
        if not self.is_symmetric:
            stored["weight_zero_point"] = pack_int32(zeros, self.bits, 0)
        return stored | ({"weight_g_idx": g_idx} if self.has_g_idx else {})

    def dequantize(self, tensors: Tensors) -> Tensor:
        """The integers less their zero point, times the scale of their group."""
        return dequantize_packed(*self._operands(tensors), self.bits)

    def finish(self, tensors: Tensors, part: WeightPart) -> Tensors:
        """Compare `weight_shape` with the layer, then drop it; raises ShapeError."""
        shapes = tensors["weight_shape"].reshape(-1, 2)
        if bool((shapes[:, 1] != part.input_size).any()):
            raise ShapeError(
                f"{part.prefix}.weight_shape says {shapes.tolist()}, the layer has {part.input_size} inputs.",
                "compare the checkpoint with its config.json",
            )
        return {suffix: tensor for suffix, tensor in tensors.items() if suffix != "weight_shape"}

    def linear(self, multiply: Multiply, x: Tensor, tensors: Tensors, bias: Tensor | None) -> Tensor:
        """Dequantizes the weight, leaves `x` as it is."""
        return multiply(x, *self._operands(tensors), self.bits, bias)

    @staticmethod
    def _operands(tensors: Tensors) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        return (
            tensors["weight_packed"],
            tensors["weight_scale"],
            tensors.get("weight_zero_point"),
            tensors.get("weight_g_idx"),
        )
