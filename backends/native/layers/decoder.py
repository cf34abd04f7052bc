"""What decoder-only models share: the layer, the stack of layers, and the head on top."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from backends.native.config import ModelConfig
from backends.native.layers.attention import Attention
from backends.native.layers.build import Build
from backends.native.layers.cache import AttentionCache, Cache, DeltaNetCache
from backends.native.layers.decoder_config import DecoderConfig
from backends.native.layers.gated_delta_net import DeltaNetShape, GatedDeltaNet
from backends.native.layers.layernorm import RMSNorm
from backends.native.layers.mlp import GatedMLP, MoEShape, SparseMoeBlock
from backends.native.layers.rotary import RotaryEmbedding
from backends.native.layers.vocab import ParallelLMHead, VocabParallelEmbedding
from backends.native.weights import LoadReport, NameMapping, load_model_weights


class DecoderLayer(nn.Module):
    """Token mixer and feed-forward block, each around a residual."""

    def __init__(self, config: DecoderConfig, layer: int, *, build: Build, prefix: str) -> None:
        super().__init__()
        self.layer = layer
        mixer, feed_forward = config.mixer_shape(layer), config.feed_forward_shape(layer)
        self.is_linear = isinstance(mixer, DeltaNetShape)
        if isinstance(mixer, DeltaNetShape):
            self.linear_attn = GatedDeltaNet(mixer, build=build, prefix=f"{prefix}.linear_attn")
        else:
            self.self_attn = Attention(mixer, build=build, prefix=f"{prefix}.self_attn")
        self.mlp = (
            SparseMoeBlock(feed_forward, build=build, prefix=f"{prefix}.mlp")
            if isinstance(feed_forward, MoEShape)
            else GatedMLP(feed_forward, build=build, prefix=f"{prefix}.mlp")
        )
        self.input_layernorm = hidden_norm(config, build, f"{prefix}.input_layernorm")
        self.post_attention_layernorm = hidden_norm(config, build, f"{prefix}.post_attention_layernorm")

    def forward(self, hidden_states: Tensor, cos: Tensor, sin: Tensor, cache: Cache | None) -> Tensor:
        """[tokens, hidden] -> [tokens, hidden]."""
        normalized = self.input_layernorm(hidden_states)
        if self.is_linear:
            states = None if cache is None else cache.delta_net.setdefault(self.layer, DeltaNetCache())
            hidden_states = hidden_states + self.linear_attn(normalized, states)
        else:
            keys_values = None if cache is None else cache.attention.setdefault(self.layer, AttentionCache())
            hidden_states = hidden_states + self.self_attn(normalized, cos, sin, keys_values)
        output: Tensor = hidden_states + self.mlp(self.post_attention_layernorm(hidden_states))
        return output


def hidden_norm(config: DecoderConfig, build: Build, prefix: str) -> RMSNorm:
    """A norm of the hidden states."""
    is_zero_centered = config.has_zero_centered_norms
    return RMSNorm(
        config.hidden_size, config.rms_norm_eps, build=build, prefix=prefix, is_zero_centered=is_zero_centered
    )


class Decoder(nn.Module):
    """Embedding, decoder layers and the last norm."""

    def __init__(self, config: DecoderConfig, *, build: Build, prefix: str) -> None:
        super().__init__()
        self.embed_tokens = VocabParallelEmbedding(
            config.vocab_size, config.hidden_size, build=build, prefix=f"{prefix}.embed_tokens"
        )
        self.layers = nn.ModuleList(
            DecoderLayer(config, layer, build=build, prefix=f"{prefix}.layers.{layer}")
            for layer in range(config.num_hidden_layers)
        )
        self.norm = hidden_norm(config, build, f"{prefix}.norm")
        self.rotary_emb = RotaryEmbedding(config.head_dim, config.rope)

    def forward(self, input_ids: Tensor, positions: Tensor, cache: Cache | None) -> Tensor:
        """int64 [tokens] twice -> hidden states [tokens, hidden]."""
        hidden_states = self.embed_tokens(input_ids)
        cos, sin = self.rotary_emb(positions, hidden_states.dtype)
        for layer in self.layers:
            hidden_states = layer(hidden_states, cos, sin, cache)
        normalized: Tensor = self.norm(hidden_states)
        return normalized


class CausalLM(nn.Module):
    """A decoder and its head on one rank; `decoder_name` is where the decoder's tensors are on disk.

    An architecture's class defines `load_weights` and `forward` itself: there they are looked for, as in the engines.
    """

    config_class: ClassVar[type[DecoderConfig]]
    packed_modules_mapping: ClassVar[Mapping[str, tuple[str, ...]]]
    name_mapping: ClassVar[NameMapping]
    decoder_name: ClassVar[str] = "model"

    def __init__(self, model_config: ModelConfig, build: Build) -> None:
        super().__init__()
        self.config = config = self.config_class.from_model_config(model_config)
        decoder = Decoder(config, build=build, prefix=self.decoder_name)
        inner = self.decoder_name.partition(".")[2]
        self.model: Any = nn.ModuleDict({inner: decoder}) if inner else decoder
        self.lm_head = ParallelLMHead(config.vocab_size, config.hidden_size, build=build, prefix="lm_head")
        if config.tie_word_embeddings:
            self.lm_head.tie_weights(self.decoder.embed_tokens)

    @property
    def decoder(self) -> Decoder:
        """The stack of layers, wherever the architecture keeps it."""
        return cast("Decoder", self.get_submodule(self.decoder_name))

    def make_cache(self) -> Cache:
        """An empty cache for one sequence."""
        return Cache()

    def fill(self, weights: Iterable[tuple[str, Tensor]]) -> LoadReport:
        """Fill this rank's parameters by the architecture's `name_mapping`."""
        return load_model_weights(self, weights, self.name_mapping)

    @torch.no_grad()
    def logits(self, input_ids: Tensor, positions: Tensor, cache: Cache | None) -> Tensor:
        """Token ids and positions, int64 [tokens] of one sequence, -> logits [tokens, vocab_size]."""
        logits: Tensor = self.lm_head(self.decoder(input_ids, positions, cache))
        return logits
