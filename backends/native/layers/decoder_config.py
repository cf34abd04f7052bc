"""The fields of config.json that every decoder has, and the sizes of its layers that follow from them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from backends.native.config import AS_PUBLISHED, ModelConfig, checked, checked_value, text_fields
from backends.native.errors import ConfigError
from backends.native.layers.attention import AttentionShape
from backends.native.layers.gated_delta_net import DeltaNetShape
from backends.native.layers.mlp import MLPShape, MoEShape
from backends.native.layers.rotary import RopeParameters

Config = TypeVar("Config", bound="DecoderConfig")


@dataclass(frozen=True, kw_only=True)
class DecoderConfig(ABC):
    """The fields that shape every decoder; an architecture adds its own and says what its layers are."""

    # Attributes of an architecture, not fields of config.json.
    partial_rotary_factor: ClassVar[float] = 1.0
    has_zero_centered_norms: ClassVar[bool] = False
    has_head_norms: ClassVar[bool] = True
    has_output_gate: ClassVar[bool] = False

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rope: RopeParameters
    rms_norm_eps: float = 1e-6
    attention_bias: bool = False
    tie_word_embeddings: bool = False
    use_sliding_window: bool = False
    hidden_act: str = "silu"

    @classmethod
    def from_model_config(cls: type[Config], config: ModelConfig) -> Config:  # noqa: PYI019 - Self needs Python 3.11
        """Check the fields of the language model; raises ConfigError for the first that is wrong or not supported."""
        return cls.from_fields(text_fields(config.fields))

    @classmethod
    def from_fields(cls: type[Config], fields: Mapping[str, object]) -> Config:  # noqa: PYI019 - as above
        """Check the fields; raises ConfigError for the first that is wrong or not supported."""
        rope = RopeParameters.from_fields(fields, partial_rotary_factor=cls.partial_rotary_factor)
        parsed = checked(cls, fields, rope=rope)
        for name, expected in (("hidden_act", "silu"), ("use_sliding_window", False)):
            found = getattr(parsed, name)
            if found != expected:
                raise ConfigError(f"config.json: {name} is {found!r}, expected {expected!r}.", AS_PUBLISHED)
        return parsed

    def mixer_shape(self, layer: int) -> AttentionShape | DeltaNetShape:
        """Sizes of the layer's token mixer; full attention unless the architecture says otherwise."""
        del layer
        return AttentionShape(
            self.hidden_size,
            self.num_attention_heads,
            self.num_key_value_heads,
            self.head_dim,
            self.attention_bias,
            self.rms_norm_eps,
            has_head_norms=self.has_head_norms,
            has_zero_centered_norms=self.has_zero_centered_norms,
            has_output_gate=self.has_output_gate,
        )

    @abstractmethod
    def feed_forward_shape(self, layer: int) -> MLPShape | MoEShape:
        """Sizes of the layer's feed-forward block."""


def heads_filled_in(fields: Mapping[str, object]) -> dict[str, object]:
    """The fields with what older config.json files leave out: as many key as query heads, which share the hidden size.

    Raises ConfigError where the sizes these follow from are wrong.
    """
    hidden, heads = (checked_value(fields.get(name), int, name) for name in ("hidden_size", "num_attention_heads"))
    given = {name: value for name, value in fields.items() if value is not None}
    return {"num_key_value_heads": heads, "head_dim": hidden // max(heads, 1), **given}
