"""Greedy generation: one prefill, then one decode step per token."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from backends.native.loader import Loaded
from backends.native.parallel.lockstep import run_ranks


def generate(loaded: Loaded, prompt_ids: Sequence[int], max_new_tokens: int) -> list[int]:
    """The `max_new_tokens` likeliest next token ids, each given all before it."""
    return run_ranks(loaded.tp_size, lambda rank: _generate_rank(loaded, rank, prompt_ids, max_new_tokens))[0]


def _generate_rank(loaded: Loaded, rank: int, prompt_ids: Sequence[int], max_new_tokens: int) -> list[int]:
    model = loaded.models[rank]
    cache = model.make_cache()
    new_ids: list[int] = []
    input_ids, start = list(prompt_ids), 0
    for _ in range(max_new_tokens):
        tokens = torch.tensor(input_ids, dtype=torch.int64, device=loaded.device)
        positions = torch.arange(start, start + len(input_ids), device=loaded.device)
        logits = model(tokens, positions, cache)
        start += len(input_ids)
        input_ids = [int(logits[-1].argmax())]
        new_ids += input_ids
    return new_ids
