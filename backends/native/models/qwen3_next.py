"""Qwen3-Next: gated delta net layers with a full attention layer in between, and mixtures of experts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from torch import Tensor

from backends.native.checkpoint.gguf_layout import GgmlLayout
from backends.native.checkpoint.spec import TensorSpec
from backends.native.config import ModelConfig
from backends.native.layers.cache import Cache
from backends.native.layers.decoder import CausalLM
from backends.native.layers.decoder_tensors import decoder_tensors, modules_kept
from backends.native.layers.fused_names import DELTA_NET_STACKED, DENSE_PARTS, DENSE_STACKED, EXPERT_PARTS
from backends.native.layers.hybrid_config import HybridConfig
from backends.native.layers.mlp import MLPShape, MoEShape
from backends.native.weights import LoadReport, NameMapping

ARCHITECTURES = ("Qwen3NextForCausalLM",)
GGML_ARCHITECTURES = ("qwen3next",)
GGML_LAYOUT = GgmlLayout(are_norms_shifted=True)


@dataclass(frozen=True, kw_only=True)
class Qwen3NextConfig(HybridConfig):
    """The fields of config.json that shape the model."""

    has_packed_projections: bool = True

    intermediate_size: int
    num_experts: int
    num_experts_per_tok: int
    moe_intermediate_size: int
    shared_expert_intermediate_size: int
    norm_topk_prob: bool = True
    decoder_sparse_step: int = 1
    mlp_only_layers: tuple[int, ...] = ()

    def is_sparse(self, layer: int) -> bool:
        """Whether the layer's feed-forward block is a mixture of experts."""
        return (
            layer not in self.mlp_only_layers and self.num_experts > 0 and (layer + 1) % self.decoder_sparse_step == 0
        )

    def feed_forward_shape(self, layer: int) -> MLPShape | MoEShape:
        """Sizes of the layer's feed-forward block."""
        if not self.is_sparse(layer):
            return MLPShape(self.hidden_size, self.intermediate_size)
        return MoEShape(
            self.hidden_size,
            self.num_experts,
            self.num_experts_per_tok,
            self.moe_intermediate_size,
            self.norm_topk_prob,
            self.shared_expert_intermediate_size,
        )


class Qwen3NextForCausalLM(CausalLM):
    """The whole model on one rank."""

    config_class = Qwen3NextConfig
    # in_proj_qkvz and in_proj_ba are whole tensors on disk: they have no parts to expand into.
    packed_modules_mapping = DENSE_PARTS | EXPERT_PARTS
    name_mapping = NameMapping(
        # Parts are stored by converters that unpack them; in_proj_qkvz and in_proj_ba as published are whole.
        stacked=DENSE_STACKED | DELTA_NET_STACKED,
        ignored_prefixes=("mtp.",),  # multi-token prediction is a draft model of its own
    )

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> LoadReport:
        """Fill this rank's parameters from (name on disk, tensor) pairs."""
        return self.fill(weights)

    def forward(self, input_ids: Tensor, positions: Tensor, cache: Cache | None = None) -> Tensor:
        """Token ids and positions, int64 [tokens] of one sequence, -> logits [tokens, vocab_size]."""
        return self.logits(input_ids, positions, cache)


def tensors(model_config: ModelConfig) -> Iterator[TensorSpec]:
    """Every tensor of a checkpoint on disk, under its unfused name."""
    return decoder_tensors(Qwen3NextConfig.from_model_config(model_config), model_config.dtype)


def modules_to_not_convert(model_config: ModelConfig) -> list[str]:
    """The modules on disk that published quantized checkpoints keep in the model's dtype."""
    return modules_kept(Qwen3NextConfig.from_model_config(model_config))


def tiny_config() -> dict[str, object]:
    """A config.json whose checkpoint has every kind of tensor and whose parts stay whole blocks at tp_size 4."""
    return {
        "architectures": list(ARCHITECTURES),
        "model_type": "qwen3_next",
        "dtype": "bfloat16",
        "vocab_size": 512,
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "full_attention_interval": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 128,
        "linear_num_key_heads": 4,
        "linear_key_head_dim": 128,
        "linear_num_value_heads": 32,
        "linear_value_head_dim": 16,
        "linear_conv_kernel_dim": 4,
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 512,
        "shared_expert_intermediate_size": 512,
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000000,
        "partial_rotary_factor": 0.25,
        "max_position_embeddings": 4096,
        "attention_bias": False,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
