"""Qwen3: full attention with norms of the query and key heads, and dense feed-forward blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from torch import Tensor

from backends.native.checkpoint.gguf_layout import GgmlLayout
from backends.native.checkpoint.spec import TensorSpec
from backends.native.config import ModelConfig
from backends.native.layers.cache import Cache
from backends.native.layers.decoder import CausalLM
from backends.native.layers.decoder_config import DecoderConfig
from backends.native.layers.decoder_tensors import decoder_tensors, modules_kept
from backends.native.layers.fused_names import DENSE_PARTS, DENSE_STACKED
from backends.native.layers.mlp import MLPShape
from backends.native.weights import LoadReport, NameMapping

ARCHITECTURES = ("Qwen3ForCausalLM",)
GGML_ARCHITECTURES = ("qwen3",)
GGML_LAYOUT = GgmlLayout()


@dataclass(frozen=True, kw_only=True)
class Qwen3Config(DecoderConfig):
    """The fields of config.json that shape the model."""

    intermediate_size: int

    def feed_forward_shape(self, layer: int) -> MLPShape:
        """Sizes of a feed-forward block, the same in every layer."""
        del layer
        return MLPShape(self.hidden_size, self.intermediate_size)


class Qwen3ForCausalLM(CausalLM):
    """The whole model on one rank."""

    config_class = Qwen3Config
    packed_modules_mapping = DENSE_PARTS
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
    return decoder_tensors(Qwen3Config.from_model_config(model_config), model_config.dtype)


def modules_to_not_convert(model_config: ModelConfig) -> list[str]:
    """The modules on disk that published quantized checkpoints keep in the model's dtype."""
    return modules_kept(Qwen3Config.from_model_config(model_config))


def tiny_config() -> dict[str, object]:
    """A config.json whose parts stay whole blocks at tp_size 4."""
    return {
        "architectures": list(ARCHITECTURES),
        "model_type": "qwen3",
        "dtype": "bfloat16",
        "vocab_size": 512,
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 128,
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
