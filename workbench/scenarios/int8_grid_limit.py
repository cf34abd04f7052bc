"""A kernel whose grid grows with tokens and heads is launched on a device that takes 65,535 programs at most."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from workbench.scenario import Scenario
from workbench.scenarios._faulty import give
from workbench.scenarios._ggml import DEVICE

OP = "fused_qkvzba_split_reshape_cat"
KEY_HEADS = 64
TOKENS = 1024
"""The first prompt that is too long: 1,024 × 64 is 65,536."""


def plant() -> None:
    """As engines had it: one kernel for every device, in spite of the one that launches in parts."""
    from backends.native.layers import gated_delta_net

    give(gated_delta_net, "kernel", _of_another_device)


def _of_another_device(repaired: Callable[..., Any]) -> Callable[..., Any]:
    import os

    os.environ["TRITON_INTERPRET"] = (
        "1"  # without a compiler for the device; the grid is judged before any program runs
    )

    def kernel(op: str, kinds: Any, module: str = "") -> Any:
        return repaired(op, ("triton",) if op == OP else kinds, module)

    return kernel


SCENARIO = Scenario(
    description="a prefill of 1,024 tokens launches 65,536 programs to split in_proj_qkvz, the NPU takes 65,535",
    checkpoint="qwen3-next-tiny-w8a8-64-heads",
    architecture="Qwen3NextForCausalLM",
    overrides={
        "num_experts": 2,
        "num_experts_per_tok": 1,
        "moe_intermediate_size": 64,
        "shared_expert_intermediate_size": 64,
        "quantization_config": {
            "quant_method": "modelslim",
            "model_quant_type": "W8A8_DYNAMIC",
            "lm_head.weight": "FLOAT",
            "model.embed_tokens.weight": "FLOAT",
            "model.layers.0.linear_attn.conv1d.weight": "FLOAT",
            "model.layers.0.mlp.gate.weight": "FLOAT",
            "model.layers.0.mlp.shared_expert_gate.weight": "FLOAT",
        },
    },
    sizes={
        "vocab_size": 256,
        "hidden_size": 128,
        "intermediate_size": 128,
        "num_hidden_layers": 1,
        "full_attention_interval": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "linear_num_key_heads": KEY_HEADS,
        "linear_key_head_dim": 16,
        "linear_num_value_heads": KEY_HEADS,
        "linear_value_head_dim": 16,
    },
    tp=1,
    device=DEVICE,
    prompt_tokens=TOKENS,
    words=("--max-new-tokens", "1"),
    plant=plant,
    expects="kernel/grid-limit",
)
