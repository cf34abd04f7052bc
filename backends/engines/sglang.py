"""SGLang as an engine, unmodified: its tracepoints from 0.5.10 on, and the launcher that loads a model on a CPU."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from inspectors.probe.tracepoint import Computed, Engine, Launch, Tracepoint

_SRT = "sglang.srt"
_LOADER = f"{_SRT}.model_loader.loader"
_LAYERS = f"{_SRT}.layers"
_QUANTIZATION = f"{_LAYERS}.quantization"

_Arguments = Mapping[str, "str | Computed"]


def _local(path: str | None) -> str | None:
    """The path of a checkpoint that is here already; a name to download becomes a folder only later."""
    return path if path and Path(path).exists() else None


def _expansion_source(module: str | None, mapping: Mapping[str, Any] | None, parts: Iterable[str] | None) -> str:
    """Where the parts that a fused name was compared as came from: the model's own mapping, or a table beside."""
    name = (module or "").rpartition(".")[2]
    if name in (mapping or {}):
        return "model"
    return "fallback" if parts else "none"


def _plain_modules(description: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The modules which a ModelSlim description leaves as they are."""
    return tuple(name.removesuffix(".weight") for name, kind in (description or {}).items() if kind == "FLOAT")


def _excluding_patterns(rules: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The patterns of per-module rules that exclude: they begin with `-:`."""
    return tuple(pattern for pattern in rules or () if pattern.startswith("-:"))


def _joined(layer: Any) -> tuple[str, ...]:
    """The order in which blocks of fused parts are joined: that of their coming, but for queries, keys and values."""
    came = getattr(getattr(layer, "qweight", None), "shard_id", None) or ()
    return () if "q" in came else tuple(str(one) for one in came)


def _function_name(function: Any) -> str | None:
    """The name of the function that was chosen, also where some of its arguments are set already."""
    return getattr(getattr(function, "func", function), "__name__", None)


def _switched_off(result: Any) -> tuple[str, ...]:
    """The block-scaled products that switches of SGLang's module rule out; it tells no reason for any other."""
    module = sys.modules.get(f"{_QUANTIZATION}.fp8_utils")
    gemm = getattr(module, "deep_gemm_wrapper", None)
    switches = (
        ("deepgemm_w8a8_block_fp8_linear_with_fallback", "ENABLE_JIT_DEEPGEMM", gemm),
        ("aiter_w8a8_block_fp8_linear", "_use_aiter", module),
    )
    chosen = _function_name(result)
    off = [(name, flag) for name, flag, holder in switches if getattr(holder, flag, None) is False and name != chosen]
    return tuple(f"{name}: {flag} is False" for name, flag in off)


def _skip(target: str, arguments: _Arguments, **versions: str) -> Tracepoint:
    return Tracepoint(
        "method.select", "skip.decided", f"{_QUANTIZATION}.{target}", {**arguments, "is_skipped": "result"}, **versions
    )


_BY_PARTS: _Arguments = {
    "module": "prefix",
    "ignored": "ignored_layers",
    "tried": "local:shard_prefixes",
    "expansion_source": Computed(_expansion_source, ("prefix", "fused_mapping", "local:shard_prefixes")),
}
_BY_DESCRIPTION: _Arguments = {**_BY_PARTS, "ignored": Computed(_plain_modules, ("self.quant_description",))}
_BY_SHARD_NAMES: _Arguments = {
    "module": "layer_name",
    "ignored": "ignore",
    "tried": "local:shard_names",
    "expansion_source": Computed(_expansion_source, ("layer_name", "fused_mapping", "local:shard_names")),
}
_BY_CONFIG = {"module": "prefix", "ignored": "local:ignored_layers"}
_BY_SUBSTRING = {"module": "prefix", "ignored": "modules_to_not_convert"}

_SKIP_DECISIONS = (
    _skip("utils:is_layer_skipped", _BY_PARTS),
    _skip("w8a8_int8:*.is_layer_skipped", _BY_DESCRIPTION),
    _skip("modelslim.modelslim:*.is_layer_skipped", _BY_DESCRIPTION),
    _skip("compressed_tensors.utils:should_ignore_layer", _BY_SHARD_NAMES),
    _skip("quark.utils:should_ignore_layer", _BY_SHARD_NAMES),
    _skip("gguf:is_layer_skipped_gguf", _BY_SUBSTRING),
    _skip("moe_wna16:is_layer_skipped_quant", _BY_SUBSTRING),
    _skip("awq:is_layer_skipped_awq", _BY_SUBSTRING, before="0.5.11"),
    _skip("awq.awq:is_layer_skipped_awq", _BY_SUBSTRING, since="0.5.11"),
    _skip("bitsandbytes:is_layer_skipped_bnb", {"module": "prefix", "ignored": "llm_int8_skip_modules"}),
    _skip("modelopt_quant:*.is_layer_excluded", {"module": "prefix", "ignored": "self.exclude_modules"}),
    _skip("humming:*.is_layer_skipped", _BY_CONFIG, since="0.5.23"),
    _skip("petit:*.is_layer_excluded", {"module": "prefix", "ignored": "exclude_modules"}),
    Tracepoint(
        "method.select",
        "skip.decided",
        f"{_QUANTIZATION}.utils:get_dynamic_override",
        {
            "module": "layer_name",
            "ignored": Computed(_excluding_patterns, ("config.dynamic",)),
            "is_skipped": Computed(lambda result: result is False, ("result",)),
        },
    ),
)

_LAYERS_NAMED = tuple(
    Tracepoint("method.select", "layer.named", f"{_LAYERS}.{target}.__init__", {"layer": "self", "module": "prefix"})
    for target in (
        "linear:LinearBase",
        "vocab_parallel_embedding:VocabParallelEmbedding",
        "moe.fused_moe_triton.layer:FusedMoE",
    )
)
"""Where a layer is told its name, before its method and its weights are made."""

_KERNELS_CHOSEN = (
    *(
        Tracepoint(
            "kernel.select",
            "kernel.chosen",
            f"{_QUANTIZATION}.fp8_utils:dispatch_{op}",
            {
                "op": Computed(lambda op=op: op, ()),
                "kernel": Computed(_function_name, ("result",)),
                "refused": Computed(refusals, ("result",)),
            },
        )
        for op, refusals in (("w8a8_block_fp8_linear", _switched_off), ("w8a8_mxfp8_linear", lambda _: ()))
    ),
    Tracepoint(
        "kernel.select",
        "kernel.chosen",
        f"{_QUANTIZATION}.base_config:FusedMoEMethodBase+.create_moe_runner",
        {"layer": "layer", "op": Computed(lambda: "moe_runner", ()), "kernel": "self.runner.runner_backend.value"},
    ),
)
"""The products of linear layers are chosen while a layer's method is, which tells the layer."""

_TRACEPOINTS = (
    Tracepoint(
        "checkpoint.open",
        "checkpoint.opened",
        f"{_LOADER}:BaseModelLoader+.load_model",
        {"path": Computed(_local, ("model_config.model_path",))},
    ),
    Tracepoint(
        "checkpoint.open",
        "checkpoint.opened",
        f"{_LOADER}:DefaultModelLoader._prepare_weights",
        {"folder": "result.0"},
    ),
    Tracepoint(
        "tensor.read",
        "tensor.read",
        f"{_LOADER}:DefaultModelLoader._get_all_weights",
        {"name": "result.0", "tensor": "result.1"},
    ),
    Tracepoint(
        "tensor.read",
        "tensor.read",
        f"{_LOADER}:GGUFModelLoader._get_weights_iterator",
        {"name": "result.0", "tensor": "result.1"},
    ),
    *_SKIP_DECISIONS,
    *_LAYERS_NAMED,
    *_KERNELS_CHOSEN,
    Tracepoint(
        "method.select",
        "method.selected",
        f"{_QUANTIZATION}.base_config:QuantizationConfig+.get_quant_method",
        {"module": "prefix", "layer": "layer", "config": "self", "selected": "result"},
    ),
    Tracepoint(
        "weights.create",
        "weights.created",
        f"{_QUANTIZATION}.base_config:QuantizeMethodBase+.create_weights",
        {"layer": "layer", "method": "self"},
    ),
    Tracepoint("weight.map", "weights.mapped", f"{_SRT}.models.*:*.load_weights", {"model": "self"}),
    Tracepoint(
        "weight.load",
        "loader.called",
        f"{_SRT}.model_loader.weight_utils:default_weight_loader",
        {"parameter": "param", "tensor": "loaded_weight"},
    ),
    Tracepoint(
        "weights.process",
        "weights.processed",
        f"{_QUANTIZATION}.base_config:QuantizeMethodBase+.process_weights_after_loading",
        {"layer": "layer", "method": "self", "joined": Computed(_joined, ("layer",))},
    ),
    Tracepoint("model.ready", "model.loaded", f"{_LOADER}:BaseModelLoader+.load_model", {"model": "result"}),
    Tracepoint(
        "forward.run",
        "forward.ran",
        f"{_SRT}.models.*:*[load_weights].forward",
        {"model": "self", "input_ids": "input_ids", "positions": "positions"},
    ),
    Tracepoint(
        "kernel.launch",
        "kernel.launched",
        f"{_QUANTIZATION}.base_config:QuantizeMethodBase+.apply",
        {"method": "self", "layer": "layer"},
    ),
)


def command(launch: Launch) -> tuple[str, ...]:
    """The argv of one load on a CPU, of one rank or of all; SGLang's own server is started with `loadscope run`."""
    python = launch.python or sys.executable
    parallel = ("--tp", str(launch.tp), "--rank", launch.rank)
    together = ("--together",) if launch.is_stepped else ()
    return (python, "-m", f"{__package__}._sglang_launch", launch.model, *parallel, *together, *launch.extra)


ENGINE = Engine(
    name="sglang",
    module="sglang",
    distribution="sglang",
    rank=f"{_SRT}.distributed.parallel_state:get_tensor_model_parallel_rank",
    tp_size=f"{_SRT}.distributed.parallel_state:get_tensor_model_parallel_world_size",
    tracepoints=_TRACEPOINTS,
    command=command,
)
