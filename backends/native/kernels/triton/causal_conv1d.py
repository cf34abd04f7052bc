"""Depthwise convolution over time that sees the past only, for a prompt as for a single token."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from backends.native.kernels.launch import launchable

BLOCK_TOKENS, BLOCK_CHANNELS = 16, 128


@triton.jit  # type: ignore[untyped-decorator]
def causal_conv1d_kernel(
    output: tl.tensor,
    last: tl.tensor,
    x: tl.tensor,
    weight: tl.tensor,
    state: tl.tensor,
    tokens: tl.tensor,
    channels: tl.tensor,
    token_stride: tl.tensor,
    channel_stride: tl.tensor,
    kernel_size: tl.constexpr,
    has_state: tl.constexpr,
    block_tokens: tl.constexpr,
    block_channels: tl.constexpr,
    block_places: tl.constexpr,
) -> None:
    """One program convolves some channels of some tokens in float32; those of the first tokens also write the state.

    `state` and `last` are [channels, kernel_size - 1]; an input before `x` lies in `state` or is zero.
    """
    token = tl.program_id(0).to(tl.int64) * block_tokens + tl.arange(0, block_tokens)
    channel = tl.program_id(1) * block_channels + tl.arange(0, block_channels)
    exists = channel < channels
    total = tl.zeros((block_tokens, block_channels), dtype=tl.float32)
    for tap in tl.static_range(kernel_size):
        position = token + tap - (kernel_size - 1)
        inside = (position < tokens)[:, None] & exists[None, :]
        source = x + position[:, None] * token_stride + channel[None, :] * channel_stride
        value = tl.load(source, mask=inside & (position >= 0)[:, None], other=0.0).to(tl.float32)
        if has_state:
            source = state + channel[None, :] * (kernel_size - 1) + position[:, None] + (kernel_size - 1)
            value += tl.load(source, mask=inside & (position < 0)[:, None], other=0.0).to(tl.float32)
        factor = tl.load(weight + channel * kernel_size + tap, mask=exists, other=0.0).to(tl.float32)
        total += value * factor[None, :]
    activated = total * tl.sigmoid(total)
    inside = (token < tokens)[:, None] & exists[None, :]
    target = output + token[:, None] * channels + channel[None, :]
    tl.store(target, activated.to(output.dtype.element_ty), mask=inside)
    if tl.program_id(0) == 0:
        place = tl.arange(0, block_places)[None, :]
        kept = (tokens - (kernel_size - 1) + place).to(tl.int64)
        is_place = exists[:, None] & (place < kernel_size - 1)
        newer = x + kept * token_stride + channel[:, None] * channel_stride
        entering = tl.load(newer, mask=is_place & (kept >= 0), other=0.0)
        if has_state:
            older = state + channel[:, None] * (kernel_size - 1) + kept + (kernel_size - 1)
            entering = tl.where(kept < 0, tl.load(older, mask=is_place & (kept < 0), other=0.0), entering)
        tl.store(last + channel[:, None] * (kernel_size - 1) + place, entering, mask=is_place)


def causal_conv1d(x: Tensor, weight: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
    """The reference's arguments and results; the grid is blocks of tokens × blocks of channels."""
    tokens, channels = x.shape
    kernel_size = weight.shape[1]
    output = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    before = None if state is None else state.to(x.dtype).contiguous()
    last = x.new_zeros(channels, kernel_size - 1)
    if not x.numel():
        return output, last if before is None else before.clone()
    block_tokens = min(BLOCK_TOKENS, int(triton.next_power_of_2(tokens)))
    launchable(causal_conv1d_kernel, (triton.cdiv(tokens, block_tokens), triton.cdiv(channels, BLOCK_CHANNELS)))(
        output,
        last,
        x,
        weight.contiguous(),
        last if before is None else before,
        tokens,
        channels,
        x.stride(0),
        x.stride(1),
        kernel_size=kernel_size,
        has_state=before is not None,
        block_tokens=block_tokens,
        block_channels=BLOCK_CHANNELS,
        block_places=triton.next_power_of_2(max(1, kernel_size - 1)),
    )
    return output, last
