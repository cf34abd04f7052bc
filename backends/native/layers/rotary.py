"""Rotary position embedding on the leading part of each head, from either spelling in config.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from backends.native.config import checked
from backends.native.errors import ConfigError


@dataclass(frozen=True)
class RopeParameters:
    """`rope_theta` and friends, flat in older config.json files and under `rope_parameters` in newer ones."""

    rope_theta: float = 10000.0
    partial_rotary_factor: float = 1.0
    rope_type: str = "default"

    @classmethod
    def from_fields(cls, fields: Mapping[str, object], *, partial_rotary_factor: float) -> RopeParameters:
        """Read both spellings, the nested one first; raises ConfigError for a type other than default."""
        nested = fields.get("rope_parameters") or fields.get("rope_scaling") or {}
        if not isinstance(nested, dict):
            raise ConfigError(
                f"config.json: rope_parameters is {nested!r}, expected an object.",
                "compare with the config.json the model was published with",
            )
        rope = checked(cls, {"partial_rotary_factor": partial_rotary_factor, **fields, **nested})
        if rope.rope_type != "default":
            raise ConfigError(
                f"config.json: rope_type is {rope.rope_type!r}, expected 'default'.",
                "remove the rope scaling; positions beyond the trained length are not supported",
            )
        return rope


class RotaryEmbedding(nn.Module):
    """Cosines and sines of the angles of each position; `rotary_dim` of the head's elements turn."""

    inv_freq: Tensor

    def __init__(self, head_dim: int, rope: RopeParameters) -> None:
        super().__init__()
        rotary_dim = int(head_dim * rope.partial_rotary_factor)
        exponents = torch.arange(0, rotary_dim, 2, dtype=torch.float32) / rotary_dim
        self.register_buffer("inv_freq", rope.rope_theta**-exponents, persistent=False)

    def forward(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """int64 [tokens] -> cos and sin, each [tokens, rotary_dim / 2] in `dtype`."""
        angles = positions[:, None].float() * self.inv_freq
        return angles.cos().to(dtype), angles.sin().to(dtype)
