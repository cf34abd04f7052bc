"""Times the gated delta rule in chunks beside the rule token by token, and prints how far their results lie apart.

python tests/benchmarks/delta_rule.py [--json]
"""

from __future__ import annotations

import torch
from paired import describe_machine, measured, pinned, report

from backends.native.kernels.reference.chunk_gated_delta_rule import chunk_gated_delta_rule
from backends.native.kernels.reference.gated_delta_rule import gated_delta_rule

SHAPES = {"tiny checkpoint": (4, 32, 128, 16), "Qwen3-Next-80B-A3B": (16, 32, 128, 128)}
TOKENS = (1, 2, 4, 16, 64, 256)


def compared(model: str, tokens: int) -> None:
    """One layer on `tokens` tokens that follow others."""
    k_heads, v_heads, k_dim, v_dim = SHAPES[model]
    torch.manual_seed(0)
    query, key = torch.randn(2, tokens, k_heads, k_dim)
    value, state = torch.randn(tokens, v_heads, v_dim), torch.randn(v_heads, k_dim, v_dim)
    arguments = (query, key, value, -torch.rand(tokens, v_heads), torch.rand(tokens, v_heads), state)
    pairs = zip(gated_delta_rule(*arguments), chunk_gated_delta_rule(*arguments), strict=True)
    apart = max(((chunked - exact).norm() / exact.norm()).item() for exact, chunked in pairs)
    moved = sum(part.numel() * part.element_size() for part in arguments)
    contenders = {
        "token by token": lambda: gated_delta_rule(*arguments),
        "chunks": lambda: chunk_gated_delta_rule(*arguments),
    }
    report(measured(f"{model}, {tokens} tokens, apart {apart:.1e}", contenders, moved, "token by token"))


if __name__ == "__main__":
    pinned()
    describe_machine()
    for name in SHAPES:
        for count in TOKENS:
            compared(name, count)
