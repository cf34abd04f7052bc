"""The tiny checkpoint that scenarios share: real names and formats, a few megabytes, whole blocks at tp 4."""

from __future__ import annotations

from collections.abc import Mapping

ARCHITECTURE = "Qwen3NextForCausalLM"
CHECKPOINT = "qwen3-next-tiny-fp8-block"
LAYERS = 4
FULL_ATTENTION_LAYER = 3
LINEAR_ATTENTION_PARTS = ("linear_attn.conv1d", "linear_attn.in_proj_ba", "linear_attn.in_proj_qkvz")
GATES = ("mlp.gate", "mlp.shared_expert_gate")


def fp8_block_overrides() -> Mapping[str, object]:
    """What turns the tiny bf16 config into one of FP8 blocks, with an ignore list as such checkpoints publish it."""
    ignored = ["lm_head"]
    for layer in range(LAYERS):
        parts = GATES if layer == FULL_ATTENTION_LAYER else (*LINEAR_ATTENTION_PARTS, *GATES)
        ignored += [f"model.layers.{layer}.{part}" for part in parts]
    return {
        "num_hidden_layers": LAYERS,
        "quantization_config": {
            "quant_method": "fp8",
            "activation_scheme": "dynamic",
            "fmt": "e4m3",
            "weight_block_size": [128, 128],
            "modules_to_not_convert": ignored,
        },
    }
