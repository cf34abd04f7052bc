"""FP8 checkpoints that say so by themselves: scales per block, per tensor, or per channel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from backends.native.config import AS_PUBLISHED, checked_value
from backends.native.errors import ConfigError
from backends.native.quantization.config import FusedNames
from backends.native.quantization.formats.float8 import Activations, Float8
from backends.native.quantization.formats.float8_blocks import Float8Blocks
from backends.native.quantization.stored import StoredWeight
from backends.native.quantization.stored_config import OneFormatConfig

PER_CHANNEL = "fbgemm_fp8"
QUANT_METHODS = ("fp8", "fbgemm_fp8")
EXAMPLES = {
    "block": {"weight_block_size": [128, 128]},
    "per tensor": {"activation_scheme": "dynamic"},
    "per channel": {"quant_method": "fbgemm_fp8"},
}
IGNORE_KEYS = ("modules_to_not_convert", "ignored_layers")
SCHEMES: Mapping[object, Activations] = {"static": "static", "dynamic": "dynamic"}


@dataclass(frozen=True)
class Fp8Config(OneFormatConfig):
    """One format for every layer that the ignore list leaves in."""

    CLAIMS = "its own name"

    @classmethod
    def claims(cls, quantization: Mapping[str, object]) -> bool:
        """Any checkpoint of these names."""
        del quantization
        return True

    @classmethod
    def from_fields(
        cls, quantization: Mapping[str, object], packed_modules_mapping: FusedNames, fused_fallback: FusedNames
    ) -> Fp8Config:
        """Read the block size or the activation scheme, and the ignore list under either of its names."""
        key = next((key for key in IGNORE_KEYS if quantization.get(key) is not None), None)
        ignored = checked_value(quantization[key], tuple[str, ...], key) if key else ()
        return cls(
            quant_method=checked_value(quantization["quant_method"], str, "quant_method"),
            ignored_layers=ignored,
            ignored_layers_key=key,
            packed_modules_mapping=packed_modules_mapping,
            fused_fallback=fused_fallback,
            stored=_stored(quantization),
        )


def _stored(quantization: Mapping[str, object]) -> StoredWeight:
    if quantization["quant_method"] == PER_CHANNEL:
        return Float8("channel", "dynamic")
    if quantization.get("weight_block_size") is not None:
        block = checked_value(quantization["weight_block_size"], tuple[int, ...], "weight_block_size")
        if len(block) != len(("block_n", "block_k")) or min(block) < 1:
            raise ConfigError(
                f"config.json: weight_block_size is {list(block)}, expected two positive sizes.", AS_PUBLISHED
            )
        return Float8Blocks(block)
    scheme = quantization.get("activation_scheme", "dynamic")
    if scheme not in SCHEMES:
        raise ConfigError(
            f"config.json: activation_scheme is {scheme!r}, expected one of {', '.join(map(str, SCHEMES))}.",
            AS_PUBLISHED,
        )
    return Float8("tensor", SCHEMES[scheme])
