"""Routing: which experts a token visits and with which weights."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from backends.native.errors import ShapeError
from backends.native.kernels.launch import launchable
from backends.native.kernels.triton.tiles import as_rows, row_tile


@triton.jit  # type: ignore[untyped-decorator]
def topk_softmax_kernel(
    weights: tl.tensor,
    ids: tl.tensor,
    logits: tl.tensor,
    tokens: tl.tensor,
    row_stride: tl.tensor,
    experts: tl.constexpr,
    top_k: tl.constexpr,
    renormalize: tl.constexpr,
    block_rows: tl.constexpr,
    block: tl.constexpr,
    block_k: tl.constexpr,
) -> None:
    """Experts are taken one by one, the likeliest first and the lower id of two alike.

    What is left to take ranks above what is taken whatever its logit, so that no id comes twice or lies outside, not
    even among infinities and NaN: such an id would read another expert's memory.
    """
    row = tl.program_id(0).to(tl.int64) * block_rows + tl.arange(0, block_rows)
    expert, place = tl.arange(0, block)[None, :], tl.arange(0, block_k)[None, :]
    inside = (row[:, None] < tokens) & (expert < experts)
    logit = tl.load(logits + row[:, None] * row_stride + expert, mask=inside, other=float("-inf")).to(tl.float32)
    # Rows past the end would divide zero by zero.
    logit = tl.where(row[:, None] < tokens, logit, 0.0)
    exponential = tl.exp(logit - tl.max(logit, axis=1)[:, None])
    probability = exponential / tl.sum(exponential, axis=1)[:, None]
    rank = tl.where(logit == logit, tl.maximum(logit, -3.0e38), float("inf"))  # noqa: PLR0124  # false for NaN
    rank = tl.where(expert < experts, rank, float("-inf"))
    taken_ids = tl.zeros((block_rows, block_k), dtype=tl.int64)
    taken_weights = tl.zeros((block_rows, block_k), dtype=tl.float32)
    for k in tl.static_range(top_k):
        best = tl.argmax(rank, axis=1)[:, None]
        weight = tl.sum(tl.where(expert == best, probability, 0.0), axis=1)[:, None]
        taken_ids = tl.where(place == k, best.to(tl.int64), taken_ids)
        taken_weights = tl.where(place == k, weight, taken_weights)
        rank = tl.where(expert == best, float("-inf"), rank)
    if renormalize:
        taken_weights = taken_weights / tl.sum(taken_weights, axis=1)[:, None]
    target, kept = row[:, None] * top_k + place, (row[:, None] < tokens) & (place < top_k)
    tl.store(weights + target, taken_weights, mask=kept)
    tl.store(ids + target, taken_ids, mask=kept)


def topk_softmax(router_logits: Tensor, top_k: int, renormalize: bool) -> tuple[Tensor, Tensor]:
    """The reference's arguments and results; of experts alike the lower id; raises ShapeError for too large a top_k."""
    tokens, experts = router_logits.shape
    if top_k > experts:
        raise ShapeError(
            f"topk_softmax: top_k is {top_k}, expected at most the {experts} experts of router_logits.",
            "compare num_experts_per_tok with num_experts in config.json",
        )
    weights = torch.empty(tokens, top_k, dtype=torch.float32, device=router_logits.device)
    ids = torch.empty(tokens, top_k, dtype=torch.int64, device=router_logits.device)
    if not weights.numel():
        return weights, ids
    source, tile = as_rows(router_logits), row_tile(tokens, experts)
    launchable(topk_softmax_kernel, (triton.cdiv(tokens, tile.rows),))(
        weights,
        ids,
        source.data,
        tokens,
        source.outer_stride,
        experts=experts,
        top_k=top_k,
        renormalize=renormalize,
        block_rows=tile.rows,
        block=tile.columns,
        block_k=triton.next_power_of_2(top_k),
        num_warps=tile.num_warps,
    )
    return weights, ids
