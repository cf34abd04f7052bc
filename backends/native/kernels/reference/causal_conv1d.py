"""Depthwise convolution over time that sees the past only."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from backends.native.kernels.op import reference_op


@reference_op
def causal_conv1d(x: Tensor, weight: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
    """`x` [tokens, channels], `weight` [channels, kernel] -> silu of the convolution, and the state after `x`.

    `state` [channels, kernel - 1] holds the inputs before `x`; None means zeros.
    """
    channels, kernel_size = weight.shape
    before = x.new_zeros(channels, kernel_size - 1) if state is None else state
    inputs = torch.cat((before, x.t()), dim=1)
    convolved = functional.conv1d(inputs.unsqueeze(0), weight.unsqueeze(1), groups=channels).squeeze(0)
    return functional.silu(convolved).t().contiguous(), inputs[:, x.shape[0] :].clone()
