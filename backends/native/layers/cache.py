"""What a sequence leaves behind for its next token: keys and values, or a convolution window and a recurrent state."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class AttentionCache:
    """Keys and values of the tokens so far, [tokens, kv_heads, head_dim]; None before the first."""

    key: Tensor | None = None
    value: Tensor | None = None

    def extended(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Append the new tokens and return all."""
        self.key = key if self.key is None else torch.cat((self.key, key))
        self.value = value if self.value is None else torch.cat((self.value, value))
        return self.key, self.value


@dataclass
class DeltaNetCache:
    """`conv` [channels, kernel - 1] holds the last inputs; `recurrent` float32 [heads, head_k_dim, head_v_dim]."""

    conv: Tensor | None = None
    recurrent: Tensor | None = None


@dataclass
class Cache:
    """The state of one sequence on one rank, by layer."""

    attention: dict[int, AttentionCache] = field(default_factory=dict)
    delta_net: dict[int, DeltaNetCache] = field(default_factory=dict)
