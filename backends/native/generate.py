"""Generation: one prefill, then one decode step per token."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch

from backends.native.errors import KernelError
from backends.native.loader import Loaded
from backends.native.parallel.groups import all_reduce, tp_rank
from backends.native.parallel.lockstep import run_ranks
from backends.native.sampling import GREEDY, Sampling, choose


def generate(
    loaded: Loaded,
    prompt_ids: Sequence[int],
    max_new_tokens: int,
    sampling: Sampling = GREEDY,
    stop_ids: Collection[int] = (),
) -> list[int]:
    """At most `max_new_tokens` token ids, each chosen given all before it; the last one may be of `stop_ids`.

    Raises KernelError on a device whose tensors hold no values.
    """
    if not loaded.place.kind.has_values:
        raise KernelError(
            f"device {loaded.place} computes no values, so there is no token to choose.", "use it with --load-only"
        )

    def work(rank: int) -> list[int]:
        return _generate_rank(loaded, rank, prompt_ids, max_new_tokens, sampling, stop_ids)

    return run_ranks(loaded.tp_size, work)[0]


def _generate_rank(
    loaded: Loaded,
    rank: int,
    prompt_ids: Sequence[int],
    max_new_tokens: int,
    sampling: Sampling,
    stop_ids: Collection[int],
) -> list[int]:
    model, generator = loaded.model(rank), sampling.generator()
    cache = model.make_cache()
    new_ids: list[int] = []
    input_ids, start = list(prompt_ids), 0
    while len(new_ids) < max_new_tokens and not (new_ids and new_ids[-1] in stop_ids):
        tokens = torch.tensor(input_ids, dtype=torch.int64, device=loaded.device)
        positions = torch.arange(start, start + len(input_ids), device=loaded.device)
        logits = model(tokens, positions, cache)
        start += len(input_ids)
        input_ids = [_agreed(choose(logits[-1], sampling, generator), loaded.device)]
        new_ids += input_ids
    return new_ids


def _agreed(token_id: int, device: torch.device) -> int:
    """The token of rank 0: logits of ranks that run apart may differ in the last bit, and so may their choices."""
    return int(all_reduce(torch.tensor([token_id if tp_rank() == 0 else 0], device=device)))
