"""Llama: full attention and dense feed-forward blocks, optionally with biases and scaled rotary frequencies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from backends.native.checkpoint.gguf_layout import GgmlLayout
from backends.native.checkpoint.spec import TensorSpec
from backends.native.config import ModelConfig
from backends.native.layers.cache import Cache
from backends.native.layers.decoder import CausalLM
from backends.native.layers.decoder_config import DecoderConfig, heads_filled_in
from backends.native.layers.decoder_tensors import decoder_tensors, modules_kept
from backends.native.layers.fused_names import DENSE_PARTS, DENSE_STACKED
from backends.native.layers.mlp import MLPShape
from backends.native.weights import LoadReport, NameMapping

ARCHITECTURES = ("LlamaForCausalLM",)
GGML_ARCHITECTURES = ("llama",)
GGML_LAYOUT = GgmlLayout(are_heads_interleaved=True)


@dataclass(frozen=True, kw_only=True)
class LlamaConfig(DecoderConfig):
    """The fields of config.json that shape the model."""

    has_head_norms: ClassVar[bool] = False

    intermediate_size: int
    mlp_bias: bool = False

    @classmethod
    def from_fields(cls, fields: Mapping[str, object]) -> LlamaConfig:
        """Check the fields, of which the first models had fewer; raises ConfigError for the first wrong one."""
        return super().from_fields(heads_filled_in(fields))

    def feed_forward_shape(self, layer: int) -> MLPShape:
        """Sizes of a feed-forward block, the same in every layer."""
        del layer
        return MLPShape(self.hidden_size, self.intermediate_size, self.mlp_bias)


class LlamaForCausalLM(CausalLM):
    """The whole model on one rank."""

    config_class = LlamaConfig
    packed_modules_mapping = DENSE_PARTS
    name_mapping = NameMapping(
        stacked=DENSE_STACKED,
        # Early checkpoints stored the frequencies, which follow from config.json; factors are read with the metadata.
        ignored_suffixes=("rotary_emb.inv_freq", "rope_freqs.weight"),
    )

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> LoadReport:
        """Fill this rank's parameters from (name on disk, tensor) pairs."""
        return self.fill(weights)

    def forward(self, input_ids: Tensor, positions: Tensor, cache: Cache | None = None) -> Tensor:
        """Token ids and positions, int64 [tokens] of one sequence, -> logits [tokens, vocab_size]."""
        return self.logits(input_ids, positions, cache)


def tensors(model_config: ModelConfig) -> Iterator[TensorSpec]:
    """Every tensor of a checkpoint on disk, under its unfused name."""
    return decoder_tensors(LlamaConfig.from_model_config(model_config), model_config.dtype)


def modules_to_not_convert(model_config: ModelConfig) -> list[str]:
    """The modules on disk that published quantized checkpoints keep in the model's dtype."""
    return modules_kept(LlamaConfig.from_model_config(model_config))


def tiny_config() -> dict[str, object]:
    """A config.json whose parts stay whole blocks at tp_size 4 and whose rotary frequencies are of every kind."""
    return {
        "architectures": list(ARCHITECTURES),
        "model_type": "llama",
        "dtype": "bfloat16",
        "vocab_size": 512,
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 128,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 1024,
        },
        "max_position_embeddings": 8192,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
