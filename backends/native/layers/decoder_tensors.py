"""The tensors of a decoder's checkpoint, and which of them quantized checkpoints leave alone."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from backends.native.checkpoint.spec import TensorSpec
from backends.native.layers.attention import attention_tensors
from backends.native.layers.decoder_config import DecoderConfig
from backends.native.layers.gated_delta_net import DeltaNetShape, delta_net_tensors
from backends.native.layers.mlp import MoEShape, mlp_tensors, moe_tensors


def decoder_tensors(
    config: DecoderConfig, dtype: torch.dtype, *, decoder_name: str = "model", are_experts_fused: bool = False
) -> Iterator[TensorSpec]:
    """Every tensor of a checkpoint on disk, under its unfused name."""
    hidden, mean = (config.hidden_size,), 0.0 if config.has_zero_centered_norms else 1.0
    yield TensorSpec(f"{decoder_name}.embed_tokens.weight", (config.vocab_size, config.hidden_size), dtype)
    for layer in range(config.num_hidden_layers):
        prefix = f"{decoder_name}.layers.{layer}"
        mixer, feed_forward = config.mixer_shape(layer), config.feed_forward_shape(layer)
        yield TensorSpec(f"{prefix}.input_layernorm.weight", hidden, dtype, mean=mean)
        if isinstance(mixer, DeltaNetShape):
            yield from delta_net_tensors(mixer, f"{prefix}.linear_attn", dtype)
        else:
            yield from attention_tensors(mixer, f"{prefix}.self_attn", dtype)
        yield TensorSpec(f"{prefix}.post_attention_layernorm.weight", hidden, dtype, mean=mean)
        if isinstance(feed_forward, MoEShape):
            yield from moe_tensors(feed_forward, f"{prefix}.mlp", dtype, are_experts_fused=are_experts_fused)
        else:
            yield from mlp_tensors(feed_forward, f"{prefix}.mlp", dtype)
    yield TensorSpec(f"{decoder_name}.norm.weight", hidden, dtype, mean=mean)
    if not config.tie_word_embeddings:
        yield TensorSpec("lm_head.weight", (config.vocab_size, config.hidden_size), dtype)


def modules_kept(config: DecoderConfig, *, decoder_name: str = "model") -> list[str]:
    """The modules on disk that published quantized checkpoints keep in the model's dtype."""
    kept = ["lm_head"]
    for layer in range(config.num_hidden_layers):
        prefix = f"{decoder_name}.layers.{layer}"
        mixer, feed_forward = config.mixer_shape(layer), config.feed_forward_shape(layer)
        if isinstance(mixer, DeltaNetShape):
            kept += [f"{prefix}.linear_attn.{name}" for name in mixer.modules_to_not_convert]
        if isinstance(feed_forward, MoEShape):
            kept += [f"{prefix}.mlp.{name}" for name in feed_forward.modules_to_not_convert]
    return kept
