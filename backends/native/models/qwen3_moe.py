"""Qwen3-MoE: full attention with norms of the query and key heads, and mixtures of experts without a shared one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from backends.native.checkpoint.gguf_layout import GgmlLayout
from backends.native.checkpoint.spec import TensorSpec
from backends.native.config import ModelConfig
from backends.native.layers.cache import Cache
from backends.native.layers.decoder import CausalLM
from backends.native.layers.decoder_config import DecoderConfig, heads_filled_in
from backends.native.layers.decoder_tensors import decoder_tensors, modules_kept
from backends.native.layers.fused_names import DENSE_PARTS, DENSE_STACKED, EXPERT_PARTS
from backends.native.layers.mlp import MLPShape, MoEShape
from backends.native.weights import LoadReport, NameMapping

ARCHITECTURES = ("Qwen3MoeForCausalLM",)
GGML_ARCHITECTURES = ("qwen3moe",)
GGML_LAYOUT = GgmlLayout()


@dataclass(frozen=True, kw_only=True)
class Qwen3MoeConfig(DecoderConfig):
    """The fields of config.json that shape the model."""

    intermediate_size: int
    num_experts: int
    num_experts_per_tok: int
    moe_intermediate_size: int
    norm_topk_prob: bool = False
    decoder_sparse_step: int = 1
    mlp_only_layers: tuple[int, ...] = ()

    @classmethod
    def from_fields(cls, fields: Mapping[str, object]) -> Qwen3MoeConfig:
        """Check the fields, of which num_experts has two names; raises ConfigError for the first wrong one."""
        either_name = {"num_experts": fields.get("num_local_experts")}
        return super().from_fields(either_name | heads_filled_in(fields))

    def feed_forward_shape(self, layer: int) -> MLPShape | MoEShape:
        """Sizes of the layer's feed-forward block."""
        is_sparse = self.num_experts > 0 and (layer + 1) % self.decoder_sparse_step == 0
        if layer in self.mlp_only_layers or not is_sparse:
            return MLPShape(self.hidden_size, self.intermediate_size)
        return MoEShape(
            self.hidden_size,
            self.num_experts,
            self.num_experts_per_tok,
            self.moe_intermediate_size,
            self.norm_topk_prob,
        )


class Qwen3MoeForCausalLM(CausalLM):
    """The whole model on one rank."""

    config_class = Qwen3MoeConfig
    packed_modules_mapping = DENSE_PARTS | EXPERT_PARTS
    name_mapping = NameMapping(
        stacked=DENSE_STACKED,
    )

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> LoadReport:
        """Fill this rank's parameters from (name on disk, tensor) pairs."""
        return self.fill(weights)

    def forward(self, input_ids: Tensor, positions: Tensor, cache: Cache | None = None) -> Tensor:
        """Token ids and positions, int64 [tokens] of one sequence, -> logits [tokens, vocab_size]."""
        return self.logits(input_ids, positions, cache)


def tensors(model_config: ModelConfig) -> Iterator[TensorSpec]:
    """Every tensor of a checkpoint on disk, under its unfused name."""
    return decoder_tensors(Qwen3MoeConfig.from_model_config(model_config), model_config.dtype)


def modules_to_not_convert(model_config: ModelConfig) -> list[str]:
    """The modules on disk that published quantized checkpoints keep in the model's dtype."""
    return modules_kept(Qwen3MoeConfig.from_model_config(model_config))


def tiny_config() -> dict[str, object]:
    """A config.json with a dense layer and sparse ones, whose parts stay whole blocks at tp_size 4."""
    return {
        "architectures": list(ARCHITECTURES),
        "model_type": "qwen3_moe",
        "dtype": "bfloat16",
        "vocab_size": 512,
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 128,
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 512,
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [1],
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000,
        "rope_scaling": None,
        "max_position_embeddings": 4096,
        "attention_bias": False,
        "use_sliding_window": False,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
