"""Qwen3-Next: gated delta net layers with a full attention layer in between, and mixtures of experts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from backends.native.checkpoint.spec import TensorSpec
from backends.native.config import ModelConfig, checked
from backends.native.errors import ConfigError
from backends.native.layers.attention import AttentionShape, GatedAttention
from backends.native.layers.build import Build
from backends.native.layers.cache import AttentionCache, Cache, DeltaNetCache
from backends.native.layers.gated_delta_net import DeltaNetShape, GatedDeltaNet
from backends.native.layers.layernorm import RMSNorm
from backends.native.layers.mlp import GatedMLP, SparseMoeBlock
from backends.native.layers.rotary import RopeParameters, RotaryEmbedding
from backends.native.layers.vocab import ParallelLMHead, VocabParallelEmbedding
from backends.native.weights import LoadReport, NameMapping, load_model_weights

ARCHITECTURES = ("Qwen3NextForCausalLM",)
FULL_ATTENTION, LINEAR_ATTENTION = "full_attention", "linear_attention"


@dataclass(frozen=True)
class Qwen3NextConfig:
    """The fields of config.json that shape the model."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    linear_num_key_heads: int
    linear_num_value_heads: int
    linear_key_head_dim: int
    linear_value_head_dim: int
    linear_conv_kernel_dim: int
    num_experts: int
    num_experts_per_tok: int
    moe_intermediate_size: int
    shared_expert_intermediate_size: int
    rope: RopeParameters
    rms_norm_eps: float = 1e-6
    attention_bias: bool = False
    tie_word_embeddings: bool = False
    norm_topk_prob: bool = True
    decoder_sparse_step: int = 1
    full_attention_interval: int = 4
    hidden_act: str = "silu"
    mlp_only_layers: tuple[int, ...] = ()
    layer_types: tuple[str, ...] = field(default=())

    @classmethod
    def from_model_config(cls, config: ModelConfig) -> Qwen3NextConfig:
        """Check the fields; raises ConfigError for the first wrong one."""
        rope = RopeParameters.from_fields(config.fields, partial_rotary_factor=0.25)
        parsed = checked(cls, config.fields, rope=rope)
        if parsed.hidden_act != "silu":
            raise ConfigError(
                f"config.json: hidden_act is {parsed.hidden_act!r}, expected 'silu'.",
                "compare with the config.json the model was published with",
            )
        if parsed.layer_types and len(parsed.layer_types) != parsed.num_hidden_layers:
            raise ConfigError(
                f"config.json: layer_types has {len(parsed.layer_types)} entries, expected {parsed.num_hidden_layers}.",
                "give one entry per layer, or remove layer_types",
            )
        return parsed

    def layer_type(self, layer: int) -> str:
        """`full_attention` or `linear_attention`."""
        if self.layer_types:
            return self.layer_types[layer]
        return LINEAR_ATTENTION if (layer + 1) % self.full_attention_interval else FULL_ATTENTION

    def is_sparse(self, layer: int) -> bool:
        """Whether the layer's feed-forward block is a mixture of experts."""
        return (
            layer not in self.mlp_only_layers and self.num_experts > 0 and (layer + 1) % self.decoder_sparse_step == 0
        )

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
        )

    def attention_shape(self) -> AttentionShape:
        """Sizes of a full attention layer."""
        return AttentionShape(
            self.hidden_size,
            self.num_attention_heads,
            self.num_key_value_heads,
            self.head_dim,
            self.attention_bias,
            self.rms_norm_eps,
        )


class Qwen3NextDecoderLayer(nn.Module):
    """Token mixer and feed-forward block, each around a residual."""

    def __init__(self, config: Qwen3NextConfig, layer: int, *, build: Build, prefix: str) -> None:
        super().__init__()
        self.layer = layer
        self.is_linear = config.layer_type(layer) == LINEAR_ATTENTION
        if self.is_linear:
            self.linear_attn = GatedDeltaNet(config.delta_net_shape(), build=build, prefix=f"{prefix}.linear_attn")
        else:
            self.self_attn = GatedAttention(config.attention_shape(), build=build, prefix=f"{prefix}.self_attn")
        self.mlp = _feed_forward(config, layer, build, f"{prefix}.mlp")
        self.input_layernorm = _norm(config, build, f"{prefix}.input_layernorm")
        self.post_attention_layernorm = _norm(config, build, f"{prefix}.post_attention_layernorm")

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


def _norm(config: Qwen3NextConfig, build: Build, prefix: str) -> RMSNorm:
    return RMSNorm(config.hidden_size, config.rms_norm_eps, build=build, prefix=prefix, is_zero_centered=True)


def _feed_forward(config: Qwen3NextConfig, layer: int, build: Build, prefix: str) -> nn.Module:
    if not config.is_sparse(layer):
        return GatedMLP(config.hidden_size, config.intermediate_size, build=build, prefix=prefix)
    return SparseMoeBlock(
        config.hidden_size,
        num_experts=config.num_experts,
        top_k=config.num_experts_per_tok,
        moe_intermediate_size=config.moe_intermediate_size,
        shared_intermediate_size=config.shared_expert_intermediate_size,
        renormalize=config.norm_topk_prob,
        build=build,
        prefix=prefix,
    )


class Qwen3NextModel(nn.Module):
    """Embedding, decoder layers and the last norm."""

    def __init__(self, config: Qwen3NextConfig, *, build: Build, prefix: str) -> None:
        super().__init__()
        self.embed_tokens = VocabParallelEmbedding(
            config.vocab_size, config.hidden_size, build=build, prefix=f"{prefix}.embed_tokens"
        )
        self.layers = nn.ModuleList(
            Qwen3NextDecoderLayer(config, layer, build=build, prefix=f"{prefix}.layers.{layer}")
            for layer in range(config.num_hidden_layers)
        )
        self.norm = _norm(config, build, f"{prefix}.norm")
        self.rotary_emb = RotaryEmbedding(config.head_dim, config.rope)

    def forward(self, input_ids: Tensor, positions: Tensor, cache: Cache | None) -> Tensor:
        """int64 [tokens] twice -> hidden states [tokens, hidden]."""
        hidden_states = self.embed_tokens(input_ids)
        cos, sin = self.rotary_emb(positions, hidden_states.dtype)
        for layer in self.layers:
            hidden_states = layer(hidden_states, cos, sin, cache)
        normalized: Tensor = self.norm(hidden_states)
        return normalized


class Qwen3NextForCausalLM(nn.Module):
    """The whole model on one rank."""

    # in_proj_qkvz and in_proj_ba are whole tensors on disk: they have no parts to expand into.
    packed_modules_mapping = {  # noqa: RUF012 - the field reads it from the class
        "qkv_proj": ("q_proj", "k_proj", "v_proj"),
        "gate_up_proj": ("gate_proj", "up_proj"),
        "experts": ("experts.0.gate_proj", "experts.0.up_proj", "experts.0.down_proj"),
    }
    name_mapping = NameMapping(
        stacked={
            "q_proj": ("qkv_proj", "q"),
            "k_proj": ("qkv_proj", "k"),
            "v_proj": ("qkv_proj", "v"),
            "gate_proj": ("gate_up_proj", 0),
            "up_proj": ("gate_up_proj", 1),
        },
        ignored_prefixes=("mtp.",),  # multi-token prediction is a draft model of its own
    )

    def __init__(self, model_config: ModelConfig, build: Build) -> None:
        super().__init__()
        self.config = Qwen3NextConfig.from_model_config(model_config)
        self.model = Qwen3NextModel(self.config, build=build, prefix="model")
        self.lm_head = ParallelLMHead(self.config.vocab_size, self.config.hidden_size, build=build, prefix="lm_head")
        if self.config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> LoadReport:
        """Fill this rank's parameters from (name on disk, tensor) pairs."""
        return load_model_weights(self, weights, self.name_mapping)

    def make_cache(self) -> Cache:
        """An empty cache for one sequence."""
        return Cache()

    @torch.no_grad()
    def forward(self, input_ids: Tensor, positions: Tensor, cache: Cache | None = None) -> Tensor:
        """Token ids and positions, int64 [tokens] of one sequence, -> logits [tokens, vocab_size]."""
        logits: Tensor = self.lm_head(self.model(input_ids, positions, cache))
        return logits


def tensors(model_config: ModelConfig) -> Iterator[TensorSpec]:
    """Every tensor of a checkpoint on disk, under its unfused name."""
    config = Qwen3NextConfig.from_model_config(model_config)
    dtype, hidden = model_config.dtype, config.hidden_size
    yield TensorSpec("model.embed_tokens.weight", (config.vocab_size, hidden), dtype)
    for layer in range(config.num_hidden_layers):
        prefix = f"model.layers.{layer}"
        yield TensorSpec(f"{prefix}.input_layernorm.weight", (hidden,), dtype)
        is_linear = config.layer_type(layer) == LINEAR_ATTENTION
        yield from (_linear_attention_tensors if is_linear else _attention_tensors)(config, prefix, dtype)
        yield TensorSpec(f"{prefix}.post_attention_layernorm.weight", (hidden,), dtype)
        yield from _feed_forward_tensors(config, layer, f"{prefix}.mlp", dtype)
    yield TensorSpec("model.norm.weight", (hidden,), dtype)
    if not config.tie_word_embeddings:
        yield TensorSpec("lm_head.weight", (config.vocab_size, hidden), dtype)


def _linear_attention_tensors(config: Qwen3NextConfig, prefix: str, dtype: torch.dtype) -> Iterator[TensorSpec]:
    shape, name = config.delta_net_shape(), f"{prefix}.linear_attn"
    channels, hidden = 2 * shape.key_dim + shape.value_dim, config.hidden_size
    yield TensorSpec(f"{name}.in_proj_qkvz.weight", (channels + shape.value_dim, hidden), dtype, quantizable=True)
    yield TensorSpec(f"{name}.in_proj_ba.weight", (2 * shape.num_v_heads, hidden), dtype, quantizable=True)
    yield TensorSpec(f"{name}.conv1d.weight", (channels, 1, shape.conv_kernel_size), dtype, std=0.3)
    yield TensorSpec(f"{name}.dt_bias", (shape.num_v_heads,), dtype, mean=1.0)
    yield TensorSpec(f"{name}.A_log", (shape.num_v_heads,), torch.float32, mean=1.0, std=0.7)
    yield TensorSpec(f"{name}.norm.weight", (shape.head_v_dim,), dtype, mean=1.0)
    yield TensorSpec(f"{name}.out_proj.weight", (hidden, shape.value_dim), dtype, quantizable=True)


def _attention_tensors(config: Qwen3NextConfig, prefix: str, dtype: torch.dtype) -> Iterator[TensorSpec]:
    name, hidden = f"{prefix}.self_attn", config.hidden_size
    queries, keys = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    for proj, shape in {
        "q_proj": (2 * queries, hidden),
        "k_proj": (keys, hidden),
        "v_proj": (keys, hidden),
        "o_proj": (hidden, queries),
    }.items():
        yield TensorSpec(f"{name}.{proj}.weight", shape, dtype, quantizable=True)
        if config.attention_bias:
            yield TensorSpec(f"{name}.{proj}.bias", shape[:1], dtype)
    yield TensorSpec(f"{name}.q_norm.weight", (config.head_dim,), dtype)
    yield TensorSpec(f"{name}.k_norm.weight", (config.head_dim,), dtype)


def _feed_forward_tensors(config: Qwen3NextConfig, layer: int, prefix: str, dtype: torch.dtype) -> Iterator[TensorSpec]:
    if not config.is_sparse(layer):
        yield from _gated_mlp_tensors(prefix, config.hidden_size, config.intermediate_size, dtype)
        return
    yield TensorSpec(f"{prefix}.gate.weight", (config.num_experts, config.hidden_size), dtype, quantizable=True)
    for expert in range(config.num_experts):
        name = f"{prefix}.experts.{expert}"
        yield from _gated_mlp_tensors(name, config.hidden_size, config.moe_intermediate_size, dtype)
    name = f"{prefix}.shared_expert"
    yield from _gated_mlp_tensors(name, config.hidden_size, config.shared_expert_intermediate_size, dtype)
    yield TensorSpec(f"{prefix}.shared_expert_gate.weight", (1, config.hidden_size), dtype, quantizable=True)


def _gated_mlp_tensors(prefix: str, hidden: int, intermediate: int, dtype: torch.dtype) -> Iterator[TensorSpec]:
    for proj in ("gate_proj", "up_proj"):
        yield TensorSpec(f"{prefix}.{proj}.weight", (intermediate, hidden), dtype, quantizable=True)
    yield TensorSpec(f"{prefix}.down_proj.weight", (hidden, intermediate), dtype, quantizable=True)


def modules_to_not_convert(model_config: ModelConfig) -> list[str]:
    """The modules on disk that published quantized checkpoints keep in the model's dtype."""
    config = Qwen3NextConfig.from_model_config(model_config)
    kept = ["lm_head"]
    for layer in range(config.num_hidden_layers):
        prefix = f"model.layers.{layer}"
        if config.layer_type(layer) == LINEAR_ATTENTION:
            kept += [f"{prefix}.linear_attn.{name}" for name in ("conv1d", "in_proj_ba", "in_proj_qkvz")]
        if config.is_sparse(layer):
            kept += [f"{prefix}.mlp.gate", f"{prefix}.mlp.shared_expert_gate"]
    return kept


def tiny_config() -> dict[str, object]:
    """A config.json whose checkpoint has every kind of tensor and whose parts stay whole blocks at tp_size 4."""
    return {
        "architectures": list(ARCHITECTURES),
        "model_type": "qwen3_next",
        "dtype": "bfloat16",
        "vocab_size": 512,
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "full_attention_interval": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 128,
        "linear_num_key_heads": 4,
        "linear_key_head_dim": 128,
        "linear_num_value_heads": 32,
        "linear_value_head_dim": 16,
        "linear_conv_kernel_dim": 4,
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 512,
        "shared_expert_intermediate_size": 512,
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000000,
        "partial_rotary_factor": 0.25,
        "max_position_embeddings": 4096,
        "attention_bias": False,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
