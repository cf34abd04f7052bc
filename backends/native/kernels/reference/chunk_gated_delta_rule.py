"""The gated delta rule in chunks of tokens: products of matrices within a chunk, one step of the state per chunk."""

from __future__ import annotations

import torch
from torch import Tensor

from backends.native.kernels.op import reference_op
from backends.native.kernels.reference.gated_delta_rule import l2_normalized

CHUNK_TOKENS = 32


@reference_op
def chunk_gated_delta_rule(
    query: Tensor, key: Tensor, value: Tensor, decay: Tensor, beta: Tensor, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Arguments and results of `gated_delta_rule`, which is its definition; equal to it but for rounding."""
    k_heads, k_dim = key.shape[1:]
    v_heads, v_dim = value.shape[1:]
    now = value.new_zeros(v_heads, k_dim, v_dim, dtype=torch.float32) if state is None else state.clone()
    now = now.view(k_heads, v_heads // k_heads, k_dim, v_dim)
    outputs = value.new_empty(value.shape, dtype=query.dtype)
    for start in range(0, value.shape[0], CHUNK_TOKENS):
        chunk = [_by_head(part[start : start + CHUNK_TOKENS], k_heads) for part in (query, key, value, decay, beta)]
        output, now = _after_chunk(now, *chunk)
        outputs[start : start + CHUNK_TOKENS] = output.flatten(0, 1).movedim(1, 0)
    return outputs, now.flatten(0, 1)


def _by_head(x: Tensor, k_heads: int) -> Tensor:
    """[tokens, heads, ...] -> float32 [k_heads, heads / k_heads, tokens, ...]."""
    grouped = x.float().reshape(x.shape[0], k_heads, x.shape[1] // k_heads, *x.shape[2:])
    return grouped.movedim(0, 2)


def _after_chunk(
    now: Tensor, query: Tensor, key: Tensor, value: Tensor, decay: Tensor, beta: Tensor
) -> tuple[Tensor, Tensor]:
    """The outputs of one chunk and the state after it, from the state before it.

    What a token writes depends on what those before it wrote: a system with a unit triangular matrix, solved for the
    values and for what the keys recall of the state before the chunk.
    """
    key, query, rate = l2_normalized(key), l2_normalized(query) * query.shape[-1] ** -0.5, beta.unsqueeze(-1)
    between, since_start = decays_between(decay), decay.cumsum(-1).exp().unsqueeze(-1)
    system = rate * (key @ key.mT) * between
    right = value - since_start * (key @ now)
    written = torch.linalg.solve_triangular(system, rate * right, upper=False, unitriangular=True)
    output = since_start * (query @ now) + (query @ key.mT * between) @ written
    kept = (key * between[..., -1, :].unsqueeze(-1)).mT
    return output, now * since_start[..., -1:, :] + kept @ written


def decays_between(decay: Tensor) -> Tensor:
    """Log decays [..., size] -> [..., i, j]: what is left at token i of what was written at j; 0 for later j.

    Each is a sum of its own. A difference of two sums from the chunk's first token would lose the small ones beside a
    large one, and be NaN after a decay to nothing.
    """
    size = decay.shape[-1]
    lower = torch.ones(size, size, dtype=torch.bool, device=decay.device).tril()
    steps = decay.unsqueeze(-1).masked_fill(~lower.tril(-1), 0.0)
    return steps.cumsum(-2).exp().masked_fill(~lower, 0.0)
