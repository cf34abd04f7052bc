"""The fields of models whose layers are gated delta nets with a full attention layer in between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from backends.native.config import AS_PUBLISHED
from backends.native.errors import ConfigError
from backends.native.layers.attention import AttentionShape
from backends.native.layers.decoder_config import DecoderConfig
from backends.native.layers.gated_delta_net import DeltaNetShape

FULL_ATTENTION, LINEAR_ATTENTION = "full_attention", "linear_attention"
Config = TypeVar("Config", bound="HybridConfig")


@dataclass(frozen=True, kw_only=True)
class HybridConfig(DecoderConfig):
    """`layer_types` has one entry per layer; without it every `full_attention_interval`-th layer is full attention."""

    partial_rotary_factor: ClassVar[float] = 0.25
    has_zero_centered_norms: ClassVar[bool] = True
    has_output_gate: ClassVar[bool] = True

    linear_num_key_heads: int
    linear_num_value_heads: int
    linear_key_head_dim: int
    linear_value_head_dim: int
    linear_conv_kernel_dim: int
    full_attention_interval: int = 4
    attn_output_gate: bool = True
    layer_types: tuple[str, ...] = ()
    has_packed_projections: bool = False

    @classmethod
    def from_fields(cls: type[Config], fields: Mapping[str, object]) -> Config:  # noqa: PYI019 - Self needs Python 3.11
        """Check the fields; raises ConfigError for the first that is wrong or not supported."""
        parsed = super().from_fields(fields)
        if not parsed.attn_output_gate:
            raise ConfigError("config.json: attn_output_gate is False, expected True.", AS_PUBLISHED)
        if parsed.layer_types and len(parsed.layer_types) != parsed.num_hidden_layers:
            raise ConfigError(
                f"config.json: layer_types has {len(parsed.layer_types)} entries, expected {parsed.num_hidden_layers}.",
                "give one entry per layer, or remove layer_types",
            )
        unknown = set(parsed.layer_types) - {FULL_ATTENTION, LINEAR_ATTENTION}
        if unknown:
            raise ConfigError(
                f"config.json: layer_types has {sorted(unknown)}, expected {FULL_ATTENTION} or {LINEAR_ATTENTION}.",
                AS_PUBLISHED,
            )
        return parsed

    def layer_type(self, layer: int) -> str:
        """`full_attention` or `linear_attention`."""
        if self.layer_types:
            return self.layer_types[layer]
        return LINEAR_ATTENTION if (layer + 1) % self.full_attention_interval else FULL_ATTENTION

    def mixer_shape(self, layer: int) -> AttentionShape | DeltaNetShape:
        """Sizes of the layer's token mixer."""
        if self.layer_type(layer) == FULL_ATTENTION:
            return super().mixer_shape(layer)
        return self.delta_net_shape()

    def delta_net_shape(self) -> DeltaNetShape:
        """Sizes of a linear attention layer."""
        return DeltaNetShape(
            self.hidden_size,
            self.linear_num_key_heads,
            self.linear_num_value_heads,
            self.linear_key_head_dim,
            self.linear_value_head_dim,
            self.linear_conv_kernel_dim,
            self.rms_norm_eps,
            self.has_packed_projections,
        )
