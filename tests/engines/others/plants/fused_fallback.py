"""Puts back the entries of SGLang's table of fused names that are right for other architectures only."""

from sglang.srt.layers.quantization import utils

utils._FALLBACK_FUSED_SHARDS.update(
    in_proj_qkvz=["in_proj_qkv", "in_proj_z"],
    in_proj_ba=["in_proj_b", "in_proj_a"],
)
