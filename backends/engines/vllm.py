"""vLLM as an engine, unmodified: its tracepoints in 0.32, and the launcher that loads and generates on a CPU."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from inspectors.probe.tracepoint import Computed, Engine, Launch, Tracepoint

_EXECUTOR = "vllm.model_executor"
_LOADER = f"{_EXECUTOR}.model_loader"
_LAYERS = f"{_EXECUTOR}.layers"
_QUANTIZATION = f"{_LAYERS}.quantization"
_GGUF = "vllm_gguf_plugin"
_METHODS = f"{_QUANTIZATION}.base_config:QuantizeMethodBase+"

_Arguments = Mapping[str, "str | Computed"]


def _local(path: str | None) -> str | None:
    """The path of a checkpoint that is here already; a name to download becomes a folder only later."""
    return path if path and Path(path).exists() else None


def _expansion_source(module: str | None, mapping: Mapping[str, Any] | None) -> str:
    """Where the parts of a fused name come from: vLLM has no table beside the model's own mapping."""
    return "model" if (module or "").rpartition(".")[2] in (mapping or {}) else "none"


def _parts(module: str | None, mapping: Mapping[str, Any] | None, matches: Any) -> tuple[str, ...]:
    """The names that a fused module was compared as; one entry of `matches` means that its own name decided."""
    name = (module or "").rpartition(".")[2]
    parts = (mapping or {}).get(name, ()) if len(matches or ()) > 1 else ()
    return tuple((module or "").replace(name, part) for part in parts)


def _excluding_patterns(rules: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The patterns of per-module rules that exclude: they begin with `-:`."""
    return tuple(pattern for pattern in rules or () if pattern.startswith("-:"))


def _class_name(kernel: Any) -> str | None:
    """The name of the kernel's class, of which some functions return an instance; None for no kernel."""
    return None if kernel is None else str(getattr(kernel, "__name__", type(kernel).__name__))


def _backend_name(backend: Any, experts: Any) -> str | None:
    """The backend's value, and the class of its experts where it has one."""
    name = str(getattr(backend, "value", backend)) if backend is not None else None
    return f"{name} ({experts.__name__})" if name and isinstance(experts, type) else name


def _reasons(said: Iterable[str] | None) -> tuple[str, ...]:
    """Reasons as "name: reason"; some functions of vLLM write "Name reason" or " Name cannot …"."""
    pairs = (reason.strip().partition(" ") for reason in said or ())
    return tuple(f"{name.rstrip(':')}: {why.rstrip('.')}" for name, _, why in pairs)


_WITHOUT_METHOD = {
    "VocabParallelEmbedding": (f"{_LAYERS}.vocab_parallel_embedding", "UnquantizedEmbeddingMethod"),
    "RoutedExperts": (f"{_LAYERS}.fused_moe.unquantized_fused_moe_method", "UnquantizedFusedMoEMethod"),
}


def _selected(method: Any, layer: Any) -> Any:
    """The method, or one like that which a layer takes where its configuration gives none."""
    for cls in type(layer).__mro__ if method is None else ():
        module, name = _WITHOUT_METHOD.get(cls.__name__, ("", ""))
        default = getattr(sys.modules.get(module), name, None)
        if default is not None:
            return default.__new__(default)
    return method


def _skip(target: str, arguments: _Arguments, package: str = _QUANTIZATION) -> Tracepoint:
    full = f"{package}.{target}"
    return Tracepoint("method.select", "skip.decided", full, {"is_skipped": "result", **arguments})


def _by_parts(ignored: str) -> _Arguments:
    """A decision that compares the parts of a fused module, which it makes first, with the list `ignored`."""
    return {
        "module": "prefix",
        "ignored": ignored,
        "tried": "local:shard_prefixes",
        "expansion_source": Computed(_expansion_source, ("prefix", "fused_mapping")),
    }


_BY_MATCHES: _Arguments = {
    "module": "layer_name",
    "ignored": "ignore",
    "tried": Computed(_parts, ("layer_name", "fused_mapping", "local:per_shard_matches")),
    "expansion_source": Computed(_expansion_source, ("layer_name", "fused_mapping")),
}

_SKIP_DECISIONS = (
    _skip("utils.quant_utils:is_layer_skipped", _by_parts("ignored_layers")),
    _skip("quantization.utils:is_layer_skipped_gguf", _by_parts("unquantized_modules"), _GGUF),
    _skip("compressed_tensors.utils:should_ignore_layer", _BY_MATCHES),
    _skip("quark.utils:should_ignore_layer", _BY_MATCHES),
    _skip("modelopt:*.is_layer_excluded", {"module": "prefix", "ignored": "self.exclude_modules"}),
    _skip("moe_wna16:is_layer_skipped_quant", {"module": "prefix", "ignored": "modules_to_not_convert"}),
    _skip("torchao:should_skip", {"module": "prefix", "ignored": "skip_modules"}),
    _skip("humming:*.is_layer_skipped", {"module": "prefix", "ignored": "local:ignored_layers"}),
    _skip("utils.humming.schema:humming_is_layer_skipped", {"module": "prefix", "ignored": "local:ignored_layers"}),
    _skip(
        "utils.gptq_utils:is_layer_gptq_quantized",
        {
            "module": "prefix",
            "tried": "local:shard_prefixes",
            "expansion_source": Computed(_expansion_source, ("prefix", "fused_mapping")),
            "is_skipped": Computed(lambda result: not result, ("result",)),
        },
    ),
    _skip(
        "utils.gptq_utils:get_dynamic_override",
        {
            "module": "layer_name",
            "ignored": Computed(_excluding_patterns, ("config.dynamic",)),
            "is_skipped": Computed(lambda result: result is False, ("result",)),
        },
    ),
)

_LAYERS_NAMED = tuple(
    Tracepoint("method.select", "layer.named", f"{_LAYERS}.{target}.__init__", {"layer": "self", "module": name})
    for target, name in (
        ("linear:LinearBase", "prefix"),
        ("vocab_parallel_embedding:VocabParallelEmbedding", "prefix"),
        ("fused_moe.routed_experts:RoutedExperts", "layer_name"),
    )
)
"""Where a layer is told its name, before its method and its weights are made."""


def _chosen(target: str, op: str | Computed, kernel: str | Computed, **more: str | Computed) -> Tracepoint:
    return Tracepoint("kernel.select", "kernel.chosen", f"{_EXECUTOR}.{target}", {"op": op, "kernel": kernel, **more})


def _constant(word: str) -> Computed:
    return Computed(lambda: word, ())


_RESULT_CLASS = Computed(_class_name, ("result",))
_WHY_OTHERS_NOT = Computed(_reasons, ("local:failure_reasons",))

_KERNELS_CHOSEN = (
    _chosen(
        "kernels.linear:choose_scaled_mm_linear_kernel",
        "quantization",
        _RESULT_CLASS,
        refused=Computed(_reasons, ("local:failure_reason_list",)),
    ),
    _chosen(
        "kernels.linear:choose_mp_linear_kernel", _constant("mixed_precision"), _RESULT_CLASS, refused=_WHY_OTHERS_NOT
    ),
    *(
        _chosen(
            f"kernels.linear:{function}",
            _constant(function.removeprefix("init_").removesuffix("_linear_kernel")),
            _RESULT_CLASS,
            refused=_WHY_OTHERS_NOT,
        )
        for function in (
            "init_mxfp8_linear_kernel",
            "init_mxfp6_linear_kernel",
            "init_mxfp4_linear_kernel",
            "init_nvfp4_linear_kernel",
        )
    ),
    *(
        _chosen(
            f"layers.fused_moe.oracle.{target}",
            _constant(target.partition(":select_")[2].removesuffix("_backend")),
            Computed(_backend_name, ("result.0", "result.1")),
        )
        for target in (
            "unquantized:select_unquantized_moe_backend",
            "fp8:select_fp8_moe_backend",
            "int8:select_int8_moe_backend",
            "int_wna16:select_wna16_moe_backend",
            "mxfp4:select_mxfp4_moe_backend",
            "mxfp8:select_mxfp8_moe_backend",
            "nvfp4:select_nvfp4_moe_backend",
            "w4a8:select_w4a8_moe_backend",
            "w4a8_int8:select_w4a8_int8_moe_backend",
        )
    ),
)
"""Kernels of linear layers are chosen while their method or their weights are made, those of experts before them."""

_TRACEPOINTS = (
    Tracepoint(
        "checkpoint.open",
        "checkpoint.opened",
        f"{_LOADER}.base_loader:BaseModelLoader+.load_model",
        {"path": Computed(_local, ("model_config.model",))},
    ),
    Tracepoint(
        "checkpoint.open",
        "checkpoint.opened",
        f"{_LOADER}.default_loader:DefaultModelLoader._prepare_weights",
        {"folder": "result.0"},
    ),
    *(
        Tracepoint("tensor.read", "tensor.read", f"{_LOADER}.{target}", {"name": "result.0", "tensor": "result.1"})
        for target in (
            "default_loader:DefaultModelLoader.get_all_weights",
            "runai_streamer_loader:RunaiModelStreamerLoader._get_weights_iterator",
            "sharded_state_loader:ShardedStateLoader.iterate_over_files",
        )
    ),
    Tracepoint(
        "tensor.read",
        "tensor.read",
        f"{_GGUF}.weight_utils:gguf_quant_weights_iterator_multi",
        {"name": "result.0", "tensor": "result.1"},
    ),
    *_SKIP_DECISIONS,
    *_LAYERS_NAMED,
    *_KERNELS_CHOSEN,
    Tracepoint(
        "method.select",
        "method.selected",
        f"{_QUANTIZATION}.base_config:QuantizationConfig+.get_quant_method",
        {
            "module": "prefix",
            "layer": "layer",
            "config": "self",
            "selected": Computed(_selected, ("result", "layer")),
        },
    ),
    Tracepoint("weights.create", "weights.created", f"{_METHODS}.create_weights", {"layer": "layer", "method": "self"}),
    Tracepoint(
        "weight.map", "weights.mapped", f"{_LOADER}.base_loader:BaseModelLoader+.load_weights", {"model": "model"}
    ),
    # Where a loader of a plugin goes past its own `load_weights`; inside another one it is no load of its own.
    Tracepoint("weight.map", "weights.mapped", f"{_EXECUTOR}.models.*:*[forward].load_weights", {"model": "self"}),
    Tracepoint(
        "weight.load",
        "loader.called",
        f"{_LOADER}.weight_utils:default_weight_loader",
        {"parameter": "param", "tensor": "loaded_weight"},
    ),
    Tracepoint(
        "weights.process",
        "weights.processed",
        f"{_METHODS}.process_weights_after_loading",
        {"layer": "layer", "method": "self"},
    ),
    Tracepoint(
        "model.ready", "model.loaded", f"{_LOADER}.base_loader:BaseModelLoader+.load_model", {"model": "result"}
    ),
    Tracepoint(
        "forward.run",
        "forward.ran",
        f"{_EXECUTOR}.models.*:*[load_weights].forward",
        {"model": "self", "input_ids": "input_ids", "positions": "positions"},
    ),
    Tracepoint("kernel.launch", "kernel.launched", f"{_METHODS}.apply", {"method": "self", "layer": "layer"}),
)


def command(launch: Launch) -> tuple[str, ...]:
    """The argv of one load on a CPU and of a short generation; vLLM's own server is started with `loadscope run`."""
    argv = [launch.python or sys.executable, "-m", f"{__package__}._vllm_launch", launch.model]
    argv += ["--tp", str(launch.tp), "--rank", launch.rank, "--max-new-tokens", str(launch.max_new_tokens)]
    argv += ["--prompt-ids", ",".join(map(str, launch.prompt_ids))]
    return (*argv, *launch.extra)


ENGINE = Engine(
    name="vllm",
    module="vllm",
    distribution="vllm",
    rank="vllm.distributed.parallel_state:get_tensor_model_parallel_rank",
    tp_size="vllm.distributed.parallel_state:get_tensor_model_parallel_world_size",
    tracepoints=_TRACEPOINTS,
    command=command,
)
