"""Chooses the next token from logits: the likeliest one, or one drawn from what temperature, top-k and top-p leave."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from backends.native.errors import SamplingError


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn; `temperature` 0 takes the likeliest, `top_k` 0 and `top_p` 1 leave every token in."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise SamplingError for a value out of range."""
        for name, is_allowed, expected in (
            ("temperature", self.temperature >= 0, "0 (greedy) or more"),
            ("top_k", self.top_k >= 0, "0 (all tokens) or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
        ):
            if not is_allowed:
                raise SamplingError(f"{name} is {getattr(self, name)}, expected {expected}.", f"choose another {name}")

    @property
    def is_greedy(self) -> bool:
        """Whether nothing is drawn."""
        return self.temperature == 0

    def generator(self) -> torch.Generator:
        """The source of chance of one sequence, on the CPU, so that a seed means the same on every device."""
        return torch.Generator().manual_seed(self.seed)


GREEDY = Sampling()


def choose(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """A token id given its logits [vocab_size]."""
    if sampling.is_greedy:
        return int(logits.argmax())
    return int(torch.multinomial(probabilities(logits, sampling), 1, generator=generator))


def probabilities(logits: Tensor, sampling: Sampling) -> Tensor:
    """Logits [vocab_size] -> float32 probabilities on the CPU; first the temperature acts, then top-k, then top-p.

    Top-p keeps the likeliest tokens until their sum reaches it, the one that reaches it included.
    """
    scaled, ids = (logits.float().cpu() / sampling.temperature).sort(descending=True, stable=True)
    if sampling.top_k:
        scaled[sampling.top_k :] = float("-inf")
    likely = scaled.softmax(-1)
    likely[likely.cumsum(-1) - likely >= sampling.top_p] = 0.0
    return torch.zeros_like(likely).scatter(0, ids, likely / likely.sum())
