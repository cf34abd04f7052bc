"""The gated delta rule in chunks, for prefill: first within all chunks at once, then the state from chunk to chunk."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from backends.native.kernels.launch import launchable
from backends.native.kernels.reference.gated_delta_rule import EPS

BLOCK_V = 32
# tl.dot needs sides of 16 at least.
SMALLEST_SIDE = 16


@triton.jit  # type: ignore[untyped-decorator]
def normalized_tile(
    source: tl.tensor,
    row_stride: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    is_row: tl.tensor,
    eps: tl.tensor,
    size: tl.constexpr,
) -> tl.tensor:
    """Rows of `source` over their lengths, in float32; those outside are zeros and change no state."""
    inside = is_row[:, None] & (columns < size)[None, :]
    tile = tl.load(source + rows[:, None] * row_stride + columns[None, :], mask=inside, other=0.0).to(tl.float32)
    return tile * tl.rsqrt(tl.sum(tile * tile, axis=1) + eps)[:, None]


@triton.jit  # type: ignore[untyped-decorator]
def within_chunks_kernel(
    inverses: tl.tensor,
    attentions: tl.tensor,
    query: tl.tensor,
    key: tl.tensor,
    decay: tl.tensor,
    beta: tl.tensor,
    tokens: tl.tensor,
    v_heads: tl.tensor,
    query_token: tl.tensor,
    query_head: tl.tensor,
    key_token: tl.tensor,
    key_head: tl.tensor,
    scale: tl.tensor,
    eps: tl.tensor,
    groups: tl.constexpr,
    k_dim: tl.constexpr,
    chunk: tl.constexpr,
    levels: tl.constexpr,
    block_k: tl.constexpr,
    precision: tl.constexpr,
    inverse_precision: tl.constexpr,
) -> None:
    """One chunk of one head: what each token writes and reads of what the others of the chunk write.

    The decay between two tokens is a sum of its own, as in the reference. The unit triangular system is inverted block
    by block: two inverted blocks of the diagonal become one of twice the size with the product that lies below them.
    """
    head = tl.program_id(1)
    row, column = tl.arange(0, chunk), tl.arange(0, block_k)
    at = tl.program_id(0).to(tl.int64) * chunk + row
    is_token = at < tokens
    q = normalized_tile(query + head // groups * query_head, query_token, at, column, is_token, eps, k_dim) * scale
    k = normalized_tile(key + head // groups * key_head, key_token, at, column, is_token, eps, k_dim)
    rate = tl.load(beta + at * v_heads + head, mask=is_token, other=0.0).to(tl.float32)
    step = tl.load(decay + at * v_heads + head, mask=is_token, other=0.0).to(tl.float32)
    i, j = row[:, None], row[None, :]
    between = tl.exp(tl.cumsum(tl.where(i > j, step[:, None], 0.0), axis=0))
    between = tl.where(i >= j, between, 0.0)
    system = rate[:, None] * tl.dot(k, tl.trans(k), input_precision=precision) * between
    inverse = tl.where(i == j, 1.0, 0.0)
    for level in tl.static_range(levels):
        is_below = (i >> level == (j >> level) + 1) & ((j >> level) % 2 == 0)
        below = tl.where(is_below, system, 0.0)
        if level > 0:
            below = tl.dot(inverse, below, input_precision=inverse_precision)
            below = tl.dot(below, inverse, input_precision=inverse_precision)
        inverse = inverse - below
    attention = tl.dot(q, tl.trans(k), input_precision=precision) * between
    cell = (tl.program_id(0).to(tl.int64) * v_heads + head) * chunk * chunk + i * chunk + j
    tl.store(inverses + cell, inverse * rate[None, :])
    tl.store(attentions + cell, attention)


@triton.jit  # type: ignore[untyped-decorator]
def across_chunks_kernel(
    output: tl.tensor,
    last: tl.tensor,
    inverses: tl.tensor,
    attentions: tl.tensor,
    query: tl.tensor,
    key: tl.tensor,
    value: tl.tensor,
    decay: tl.tensor,
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
    chunk: tl.constexpr,
    block_k: tl.constexpr,
    block_v: tl.constexpr,
    precision: tl.constexpr,
) -> None:
    """Some value columns of one head, from chunk to chunk with their part of the state in registers."""
    head = tl.program_id(0)
    row, key_column = tl.arange(0, chunk), tl.arange(0, block_k)
    column = tl.program_id(1) * block_v + tl.arange(0, block_v)
    in_column, i, j = column < v_dim, row[:, None], row[None, :]
    cell = head.to(tl.int64) * k_dim * v_dim + key_column[:, None] * v_dim + column[None, :]
    in_state = (key_column < k_dim)[:, None] & in_column[None, :]
    now = tl.zeros((block_k, block_v), dtype=tl.float32)
    if has_state:
        now += tl.load(state + cell, mask=in_state, other=0.0)
    for index in range(tl.cdiv(tokens, chunk)):
        at = tl.full((), 0, tl.int64) + index * chunk + row
        is_token = at < tokens
        inside = is_token[:, None] & in_column[None, :]
        q = (
            normalized_tile(query + head // groups * query_head, query_token, at, key_column, is_token, eps, k_dim)
            * scale
        )
        k = normalized_tile(key + head // groups * key_head, key_token, at, key_column, is_token, eps, k_dim)
        v = tl.load(value + at[:, None] * value_token + head * value_head + column[None, :], mask=inside, other=0.0)
        step = tl.load(decay + at * v_heads + head, mask=is_token, other=0.0).to(tl.float32)
        since_start = tl.exp(tl.cumsum(step, axis=0))
        to_end = tl.exp(tl.sum(tl.where(i > j, step[:, None], 0.0), axis=0))
        square = (tl.full((), 0, tl.int64) + index * v_heads + head) * chunk * chunk + i * chunk + j
        recalled = since_start[:, None] * tl.dot(k, now, input_precision=precision)
        written = tl.dot(tl.load(inverses + square), v.to(tl.float32) - recalled, input_precision=precision)
        read = since_start[:, None] * tl.dot(q, now, input_precision=precision)
        read += tl.dot(tl.load(attentions + square), written, input_precision=precision)
        target = output + (at[:, None] * v_heads + head) * v_dim + column[None, :]
        tl.store(target, read.to(output.dtype.element_ty), mask=inside)
        now = now * tl.exp(tl.sum(step, axis=0))
        now += tl.dot(tl.trans(k * to_end[:, None]), written, input_precision=precision)
    tl.store(last + cell, now, mask=in_state)


def chunk_gated_delta_rule(
    query: Tensor, key: Tensor, value: Tensor, decay: Tensor, beta: Tensor, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The reference's arguments and results; the grids are chunks × value heads, then value heads × blocks of v_dim.

    Products are exact in float32 for float32 queries. For 16-bit ones they take TF32, which keeps more bits than the
    inputs have, except for the inverse, whose errors would go on from token to token.
    """
    tokens, v_heads, v_dim = value.shape
    k_heads, k_dim = key.shape[1:]
    query, key, value = (part if part.stride(2) == 1 else part.contiguous() for part in (query, key, value))
    decay, beta = decay.contiguous(), beta.contiguous()
    block_k, block_v = (max(SMALLEST_SIDE, int(triton.next_power_of_2(size))) for size in (k_dim, v_dim))
    block_v = min(BLOCK_V if block_k <= 128 else BLOCK_V // 2, block_v)
    is_exact = query.dtype == torch.float32 or torch.version.hip is not None
    precision, inverse_precision = ("ieee", "ieee") if is_exact else ("tf32", "tf32x3")
    # Larger chunks spill: exact products are unrolled in registers, TF32 operands lie in shared memory.
    chunk = 16 if is_exact else 32
    chunks = triton.cdiv(tokens, chunk)
    inverses = torch.empty(chunks, v_heads, chunk, chunk, dtype=torch.float32, device=value.device)
    attentions = torch.empty_like(inverses)
    strides = [stride for part in (query, key, value) for stride in part.stride()[:2]]
    shared = {
        "scale": k_dim**-0.5,
        "eps": EPS,
        "groups": v_heads // k_heads,
        "k_dim": k_dim,
        "chunk": chunk,
        "block_k": block_k,
        "precision": precision,
        "num_warps": 8 if block_k > 64 else 4,
        # A pipelined loop would hold its operands in shared memory several times.
        "num_stages": 1,
    }
    if tokens:
        launchable(within_chunks_kernel, (chunks, v_heads))(
            inverses,
            attentions,
            query,
            key,
            decay,
            beta,
            tokens,
            v_heads,
            *strides[:4],
            levels=chunk.bit_length() - 1,
            inverse_precision=inverse_precision,
            **shared,
        )
    output = torch.empty(value.shape, dtype=query.dtype, device=value.device)
    last = torch.empty(v_heads, k_dim, v_dim, dtype=torch.float32, device=value.device)
    launchable(across_chunks_kernel, (v_heads, triton.cdiv(v_dim, block_v)))(
        output,
        last,
        inverses,
        attentions,
        query,
        key,
        value,
        decay,
        last if state is None else state.contiguous(),
        tokens,
        v_heads,
        *strides,
        v_dim=v_dim,
        has_state=state is not None,
        block_v=block_v,
        **shared,
    )
    return output, last
