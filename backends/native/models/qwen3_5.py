"""Qwen3.5, dense: gated delta net layers with a full attention layer in between; the text part."""

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
from backends.native.layers.fused_names import DELTA_NET_PARTS, DELTA_NET_STACKED, DENSE_PARTS, DENSE_STACKED
from backends.native.layers.hybrid_config import HybridConfig
from backends.native.layers.mlp import MLPShape
from backends.native.weights import LoadReport, NameMapping

ARCHITECTURES = ("Qwen3_5ForConditionalGeneration", "Qwen3_5ForCausalLM")
GGML_ARCHITECTURES = ("qwen35",)
GGML_LAYOUT = GgmlLayout(are_norms_shifted=True, are_value_heads_tiled=True)


@dataclass(frozen=True, kw_only=True)
class TextConfig(HybridConfig):
    """The fields of config.json that shape the language model."""

    intermediate_size: int

    def feed_forward_shape(self, layer: int) -> MLPShape:
        """Sizes of a feed-forward block, the same in every layer."""
        del layer
        return MLPShape(self.hidden_size, self.intermediate_size)


class Qwen3_5ForCausalLM(CausalLM):  # noqa: N801 - the published name
    """The language model on one rank, from a checkpoint that holds nothing else."""

    config_class = TextConfig
    # The input projections are stored apart and fused here: an ignore list names the parts.
    packed_modules_mapping = DENSE_PARTS | DELTA_NET_PARTS
    name_mapping = NameMapping(
        stacked=DENSE_STACKED | DELTA_NET_STACKED,
        # Images and multi-token prediction have models of their own.
        ignored_prefixes=("model.visual.", "mtp."),
    )

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> LoadReport:
        """Fill this rank's parameters from (name on disk, tensor) pairs."""
        return self.fill(weights)

    def forward(self, input_ids: Tensor, positions: Tensor, cache: Cache | None = None) -> Tensor:
        """Token ids and positions, int64 [tokens] of one sequence, -> logits [tokens, vocab_size]."""
        return self.logits(input_ids, positions, cache)


class Qwen3_5ForConditionalGeneration(Qwen3_5ForCausalLM):  # noqa: N801 - the published name
    """The language model on one rank, from a checkpoint that holds a model of images beside it."""

    decoder_name = "model.language_model"


def decoder_name_of(model_config: ModelConfig) -> str:
    """Where the language model's tensors are on disk."""
    is_alone = model_config.architecture == Qwen3_5ForCausalLM.__name__
    return (Qwen3_5ForCausalLM if is_alone else Qwen3_5ForConditionalGeneration).decoder_name


def tensors(model_config: ModelConfig) -> Iterator[TensorSpec]:
    """Every tensor of the language model on disk, under its unfused name."""
    config = TextConfig.from_model_config(model_config)
    return decoder_tensors(config, model_config.dtype, decoder_name=decoder_name_of(model_config))


def modules_to_not_convert(model_config: ModelConfig) -> list[str]:
    """The modules on disk that published quantized checkpoints keep in the model's dtype."""
    config = TextConfig.from_model_config(model_config)
    return modules_kept(config, decoder_name=decoder_name_of(model_config))


def tiny_config() -> dict[str, object]:
    """A config.json whose parts stay whole blocks at tp_size 4, with a model of images that is as small."""
    return {
        "architectures": list(ARCHITECTURES[:1]),
        "model_type": "qwen3_5",
        "tie_word_embeddings": False,
        "text_config": {
            "model_type": "qwen3_5_text",
            "dtype": "bfloat16",
            "vocab_size": 512,
            "hidden_size": 256,
            "intermediate_size": 512,
            "num_hidden_layers": 4,
            "full_attention_interval": 4,
            "attn_output_gate": True,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 128,
            "linear_num_key_heads": 4,
            "linear_key_head_dim": 128,
            "linear_num_value_heads": 32,
            "linear_value_head_dim": 16,
            "linear_conv_kernel_dim": 4,
            "hidden_act": "silu",
            "rms_norm_eps": 1e-6,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000000,
                "partial_rotary_factor": 0.25,
                "mrope_interleaved": True,
                "mrope_section": [6, 5, 5],
            },
            "max_position_embeddings": 4096,
            "attention_bias": False,
            "tie_word_embeddings": False,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
        "vision_config": {
            "model_type": "qwen3_5",
            "depth": 1,
            "hidden_size": 64,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": 256,
            "num_position_embeddings": 16,
        },
    }
