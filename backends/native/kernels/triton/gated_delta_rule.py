"""The gated delta rule token by token, for decoding: each program keeps a part of one head's state in registers."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from backends.native.kernels.launch import launchable
from backends.native.kernels.reference.gated_delta_rule import EPS

BLOCK_V = 32


@triton.jit  # type: ignore[untyped-decorator]
def gated_delta_rule_kernel(
    output: tl.tensor,
    last: tl.tensor,
    query: tl.tensor,
    key: tl.tensor,
    value: tl.tensor,
    decay: tl.tensor,
    beta: tl.tensor,
    state: tl.tensor,
    tokens: tl.tensor,
    v_heads: tl.tensor,
    query_token: tl.tensor,
    query_head: tl.tensor,
    key_token: tl.tensor,
    key_head: tl.tensor,
    value_token: tl.tensor,
    value_head: tl.tensor,
    scale: tl.tensor,
    eps: tl.tensor,
    groups: tl.constexpr,
    k_dim: tl.constexpr,
    v_dim: tl.constexpr,
    has_state: tl.constexpr,
    block_k: tl.constexpr,
    block_v: tl.constexpr,
) -> None:
    """Strides end in `_token` and `_head`; decay and beta are [tokens, v_heads], states [v_heads, k_dim, v_dim]."""
    head = tl.program_id(0)
    row, column = tl.arange(0, block_k), tl.program_id(1) * block_v + tl.arange(0, block_v)
    in_row, in_column = row < k_dim, column < v_dim
    cell = head.to(tl.int64) * k_dim * v_dim + row[:, None] * v_dim + column[None, :]
    inside = in_row[:, None] & in_column[None, :]
    now = tl.zeros((block_k, block_v), dtype=tl.float32)
    if has_state:
        now += tl.load(state + cell, mask=inside, other=0.0)
    for token in range(tokens):
        at = tl.full((), 0, tl.int64) + token
        q = tl.load(query + at * query_token + head // groups * query_head + row, mask=in_row, other=0.0)
        k = tl.load(key + at * key_token + head // groups * key_head + row, mask=in_row, other=0.0)
        v = tl.load(value + at * value_token + head * value_head + column, mask=in_column, other=0.0)
        q, k = q.to(tl.float32), k.to(tl.float32)
        q = q * tl.rsqrt(tl.sum(q * q, axis=0) + eps) * scale
        k = k * tl.rsqrt(tl.sum(k * k, axis=0) + eps)
        now = now * tl.exp(tl.load(decay + at * v_heads + head).to(tl.float32))
        recalled = tl.sum(now * k[:, None], axis=0)
        written = (v.to(tl.float32) - recalled) * tl.load(beta + at * v_heads + head).to(tl.float32)
        now = now + k[:, None] * written[None, :]
        read = tl.sum(now * q[:, None], axis=0)
        target = output + (at * v_heads + head) * v_dim + column
        tl.store(target, read.to(output.dtype.element_ty), mask=in_column)
    tl.store(last + cell, now, mask=inside)


def gated_delta_rule(
    query: Tensor, key: Tensor, value: Tensor, decay: Tensor, beta: Tensor, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The reference's arguments and results; the grid is value heads × blocks of the value dimension."""
    tokens, v_heads, v_dim = value.shape
    k_heads, k_dim = key.shape[1:]
    query, key, value = (part if part.stride(2) == 1 else part.contiguous() for part in (query, key, value))
    output = torch.empty(value.shape, dtype=query.dtype, device=value.device)
    last = torch.empty(v_heads, k_dim, v_dim, dtype=torch.float32, device=value.device)
    block_v = min(BLOCK_V, int(triton.next_power_of_2(v_dim)))
    launchable(gated_delta_rule_kernel, (v_heads, triton.cdiv(v_dim, block_v)))(
        output,
        last,
        query,
        key,
        value,
        decay.contiguous(),
        beta.contiguous(),
        last if state is None else state.contiguous(),
        tokens,
        v_heads,
        *(stride for part in (query, key, value) for stride in part.stride()[:2]),
        scale=k_dim**-0.5,
        eps=EPS,
        groups=v_heads // k_heads,
        k_dim=k_dim,
        v_dim=v_dim,
        has_state=state is not None,
        block_k=triton.next_power_of_2(k_dim),
        block_v=block_v,
    )
    return output, last
