"""Rotary position embedding on the leading part of each head, from either spelling in config.json."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from backends.native.config import AS_PUBLISHED, checked
from backends.native.errors import ConfigError


@dataclass(frozen=True)
class RopeParameters:
    """`rope_theta` and friends, flat in older config.json files and under `rope_parameters` in newer ones.

    The four after `rope_type` belong to the type llama3: frequencies whose wavelength is long beside the trained length
    are slowed down by `factor`. Converted checkpoints have that as one divisor per frequency, `freq_factors`. A
    `mrope_section` changes nothing for text, whose three positions are the same number.
    """

    rope_theta: float = 10000.0
    partial_rotary_factor: float = 1.0
    rope_type: str = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8192
    freq_factors: tuple[float, ...] = ()

    @classmethod
    def from_fields(cls, fields: Mapping[str, object], *, partial_rotary_factor: float) -> RopeParameters:
        """Read both spellings, the nested one first; raises ConfigError for a type other than default and llama3."""
        nested = fields.get("rope_parameters") or fields.get("rope_scaling") or {}
        if not isinstance(nested, dict):
            raise ConfigError(f"config.json: rope_parameters is {nested!r}, expected an object.", AS_PUBLISHED)
        older_name = {"rope_type": nested.get("type")}
        given = {"partial_rotary_factor": partial_rotary_factor, **fields, **older_name, **nested}
        rope = checked(cls, given)
        if rope.rope_type not in ("default", "llama3"):
            raise ConfigError(
                f"config.json: rope_type is {rope.rope_type!r}, expected 'default' or 'llama3'.",
                "remove the rope scaling; positions beyond the trained length are not supported",
            )
        if rope.rope_type == "llama3" and not 0 < rope.low_freq_factor < rope.high_freq_factor:
            raise ConfigError(
                f"config.json: low_freq_factor is {rope.low_freq_factor} and high_freq_factor "
                f"{rope.high_freq_factor}, expected the first to be the smaller one.",
                AS_PUBLISHED,
            )
        return rope

    def frequencies(self, head_dim: int) -> Tensor:
        """Angle per position of each turning pair, float32 [rotary_dim / 2]."""
        rotary_dim = int(head_dim * self.partial_rotary_factor)
        exponents = torch.arange(0, rotary_dim, 2, dtype=torch.float32) / rotary_dim
        frequencies = self.rope_theta**-exponents
        if self.freq_factors:
            return frequencies / torch.tensor(self.freq_factors)
        return self._slowed_down(frequencies) if self.rope_type == "llama3" else frequencies

    def _slowed_down(self, frequencies: Tensor) -> Tensor:
        """High frequencies as they are, low ones divided by `factor`, those between weighted by their turns."""
        turns = self.original_max_position_embeddings * frequencies / (2 * math.pi)
        kept = ((turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)).clamp(0, 1)
        return frequencies * (kept + (1 - kept) / self.factor)


class RotaryEmbedding(nn.Module):
    """Cosines and sines of the angles of each position; `rotary_dim` of the head's elements turn."""

    inv_freq: Tensor

    def __init__(self, head_dim: int, rope: RopeParameters) -> None:
        super().__init__()
        self.register_buffer("inv_freq", rope.frequencies(head_dim), persistent=False)

    def forward(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """int64 [tokens] -> cos and sin, each [tokens, rotary_dim / 2] in `dtype`."""
        angles = positions[:, None].float() * self.inv_freq
        return angles.cos().to(dtype), angles.sin().to(dtype)
