"""transformers 5 as an engine, unmodified: where its conversions, assignments and quantizers can be seen."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from inspectors.probe.tracepoint import Computed, Engine, Launch, Tracepoint

_LOADING = "transformers.core_model_loading"
_MODELING = "transformers.modeling_utils"
_QUANTIZERS = "transformers.quantizers"
SAMPLED = 4096
"""Elements of a missing parameter that are looked at: enough to tell ones from random values."""

_names: dict[int, str] = {}
"""Checkpoint names of what is to be read, by identity: the function that reads is given no name."""


_computed: set[int] = set()
"""Entries whose values were computed before they are read, by identity."""

_ggml_names: dict[str, str] = {}
"""Names in a GGUF file by those that transformers gives the tensors when it dequantizes all of them beforehand."""


def _noted(model: Any, state_dict: Mapping[str, Any] | None) -> Any:
    """The model that is about to be loaded; notes what the entries of the checkpoint are called."""
    _names.update((id(entry), _ggml_names.get(name, name)) for name, entry in (state_dict or {}).items())
    _computed.clear()
    _computed.update(id(entry) for name, entry in (state_dict or {}).items() if name in _ggml_names)
    return model


def _noted_ggml(names: Mapping[str, str] | None) -> None:
    """Notes which tensors of a GGUF file become which parameter."""
    _ggml_names.clear()
    for in_file, given in (names or {}).items():
        _ggml_names[given] = f"{_ggml_names[given]}, {in_file}" if given in _ggml_names else in_file


def _folder_of(files: Iterable[str] | None) -> str | None:
    return next((file if file.endswith(".gguf") else str(Path(file).parent) for file in files or ()), None)


def _local(path: Any, gguf_file: str | None) -> str | None:
    """The path of a checkpoint that is here already; a name to download becomes a folder only later."""
    _ggml_names.clear()
    found = Path(str(path or ""), gguf_file or "")
    return str(found) if path and found.exists() else None


def _tensors_of(result: Mapping[str, Any] | None) -> list[Any]:
    """The tensors of a conversion, by target, each perhaps in a list of its own."""
    return [one for made in (result or {}).values() for one in (made if isinstance(made, list) else [made])]


def _sources_of(targets: Mapping[str, Iterable[str]] | None) -> list[str]:
    """The checkpoint tensors that were collected for a conversion, experts in the order of their numbers."""
    names = {_ggml_names.get(name, name) for collected in (targets or {}).values() for name in collected}
    return sorted(names, key=lambda name: [(int(part) if part.isdigit() else -1, part) for part in name.split(".")])


def _parameter_of(model: Any, name: str | None) -> Any:
    """What the model holds under a name now: a tensor on no device before it is filled. None for no such module."""
    owner, _, last = (name or "").replace("*.", "0.").rpartition(".")
    try:
        found = getattr(model.get_submodule(owner), last, None)
    except AttributeError:
        return None  # of a conversion that is asked for without a model, or back to a checkpoint's names
    return getattr(found, "_local_tensor", found)  # of a DTensor what this rank holds


def _missing(model: Any, info: Any) -> list[str]:
    """What no tensor of the checkpoint filled: missing ones and those of another shape, without what is tied."""
    tied = getattr(model, "all_tied_weights_keys", ())
    names = {*getattr(info, "missing_keys", ()), *(key[0] for key in getattr(info, "mismatched_keys", ()))}
    return sorted(name for name in names if name not in tied)


def _initialised(model: Any, info: Any) -> list[str]:
    """For each of `_missing` what is in it now, "" where it was not written to since transformers gave it memory."""
    return [_values_of(_parameter_of(model, name)) for name in _missing(model, info)]


def _values_of(parameter: Any) -> str:
    """What the initialisation of a parameter looks like, by its first elements."""
    parameter = parameter.to_local() if hasattr(parameter, "to_local") else parameter
    if parameter is None or parameter.is_meta or not parameter._version:  # noqa: SLF001 - counts writes in place
        return ""
    some = parameter.detach().reshape(-1)[:SAMPLED].float()
    if not some.numel():
        return ""
    if bool((some == some[0]).all()):
        return f"{float(some[0]):g} everywhere"
    return f"random values, standard deviation {float(some.std()):.2g}"


def _refused(model: Any, info: Any) -> list[str]:
    """The parameters because of which a loaded model is refused: of another shape, not converted, missing."""
    mismatched = sorted(key[0] for key in getattr(info, "mismatched_keys", ()))
    return [*mismatched, *getattr(info, "conversion_errors", ())] or _missing(model, info)


def _read_from(place: str) -> dict[str, str | Computed]:
    """What an entry of the state dict tells of the tensor in the file: a slice of safetensors, or a tensor."""
    return {
        "name": Computed(lambda entry: _names.get(id(entry), ""), (place,)),
        "is_computed": Computed(lambda entry: id(entry) in _computed, (place,)),
        "stored_dtype": Computed(lambda entry: _told(entry, "get_dtype", "dtype"), (place,)),
        "stored_shape": Computed(lambda entry: _told(entry, "get_shape", "shape"), (place,)),
    }


def _told(entry: Any, method: str, attribute: str) -> Any:
    return getattr(entry, method)() if hasattr(entry, method) else getattr(entry, attribute, None)


def _taken(dense: Any, of_experts: Any) -> Any:
    """For each dimension the intervals that a rank reads; None for all: a replicated tensor."""
    return of_experts if of_experts is not None else dense


def _owner_of(model: Any, name: str | None) -> Any:
    """The module that a parameter belongs to."""
    try:
        return model.get_submodule((name or "").rpartition(".")[0])
    except AttributeError:
        return None  # see `_parameter_of`


def _dequantizing(transform: Any, name: str, targets: Mapping[str, Iterable[str]] | None) -> Any:
    """The operation that makes plain values of quantized ones; None where it was given no scale, or no blocks."""
    operations = (*getattr(transform, "operations", ()), getattr(transform, "quantization_operation", None))
    found = next((one for one in operations if "equantize" in type(one).__name__), None)
    blocks = getattr(found, "ggml_types", None)  # they hold their scales
    has_scales = len({source.rpartition(".")[2] for source in _sources_of(targets)}) > 1
    return found if (has_scales if blocks is None else name in blocks) else None


def _modules_of(model: Any) -> dict[str, str]:
    """What each module of a model is: its class, and the scheme that compressed-tensors gave it."""
    return {name: _kind_of(module) for name, module in model.named_modules() if name}


def _kind_of(module: Any) -> str:
    weights = getattr(getattr(module, "quantization_scheme", None), "weights", None)
    if weights is None:
        return type(module).__name__
    named = (getattr(value, "value", value) for value in (weights.type, weights.num_bits, weights.strategy))
    return " ".join([type(module).__name__, *map(str, named)])


def _is_list(entries: Any) -> bool:
    """True for a list of entries to leave alone; one entry is a target, which says what may be quantized."""
    return not isinstance(entries, str)


_INTERVALS = ("local:intervals_by_dim", "local:intervals_by_source_dim")
_LOADED = ("model", "loading_info")
_OF_THE_MODEL = ("model", "target_name")
_CONVERTED = Computed(_parameter_of, ("model", "full_layer_name"))

_TRACEPOINTS = (
    Tracepoint(
        "checkpoint.open",
        "checkpoint.opened",
        f"{_MODELING}:PreTrainedModel.from_pretrained",
        {"path": Computed(_local, ("pretrained_model_name_or_path", "gguf_file"))},
    ),
    Tracepoint(
        "checkpoint.open",
        "checkpoint.opened",
        f"{_MODELING}:_get_resolved_checkpoint_files",
        {"folder": Computed(_folder_of, ("result.0",))},
    ),
    Tracepoint(
        "checkpoint.open",
        "checkpoint.opened",
        "transformers.modeling_gguf_pytorch_utils:load_gguf_checkpoint",
        {"folder": Computed(_noted_ggml, ("local:tensor_key_mapping",))},
    ),
    Tracepoint(
        "tensor.read",
        "tensor.read",
        f"{_LOADING}:_materialize_copy",
        {**_read_from("tensor"), "tensor": "result"},
    ),
    Tracepoint(
        "tensor.read",
        "tensor.read",
        "transformers.distributed.sharding_utils:DtensorShardOperation.shard_tensor",
        {**_read_from("source"), "tensor": "result", "taken": Computed(_taken, _INTERVALS)},
    ),
    *(
        Tracepoint(
            "tensor.read",
            "tensor.converted",
            f"{_LOADING}:{transform}.convert",
            {
                "sources": Computed(_sources_of, ("self.layer_targets",)),
                "made": Computed(_tensors_of, ("result",)),
            },
        )
        for transform in ("WeightRenaming", "WeightConverter")
    ),
    Tracepoint(
        "method.select",
        "skip.decided",
        f"{_QUANTIZERS}.quantizers_utils:should_convert_module",
        {
            "module": "full_name",
            "ignored": "patterns",
            "is_skipped": Computed(lambda is_converted: not is_converted, ("result",)),
        },
    ),
    Tracepoint(
        "method.select",
        "method.selected",
        f"{_QUANTIZERS}.base:HfQuantizer.preprocess_model",
        {
            "layer": "model",
            "config": "self.quantization_config",
            "selected": "self",
            "modules": Computed(_modules_of, ("model",)),
        },
    ),
    Tracepoint(
        "method.select",
        "skip.decided",
        "compressed_tensors.utils.match:is_match",
        {
            "module": "name",
            "ignored": "targets",
            "is_skipped": "result",
            "is_decision": Computed(_is_list, ("targets",)),
        },
    ),
    *(
        Tracepoint(
            "method.select",
            "method.selected",
            f"{_LOADING}:{transform}.convert",
            {
                "module": Computed(lambda name: (name or "").rpartition(".")[0], ("layer_name",)),
                "layer": Computed(_owner_of, ("model", "layer_name")),
                "config": "hf_quantizer.quantization_config",
                "selected": Computed(_dequantizing, ("self", "layer_name", "self.layer_targets")),
            },
        )
        for transform in ("WeightRenaming", "WeightConverter")
    ),
    Tracepoint(
        "weight.map",
        "weights.mapped",
        f"{_LOADING}:convert_and_load_state_dict_in_model",
        {"model": Computed(_noted, ("model", "state_dict"))},
    ),
    Tracepoint(
        "weight.load",
        "loader.called",
        f"{_LOADING}:ConversionOps+.convert",
        {
            "parameter": _CONVERTED,
            "parameter_name": "full_layer_name",
            "tensor": Computed(lambda given: next(iter(_tensors_of(given)), None), ("input_dict",)),
        },
    ),
    Tracepoint(
        "weight.load",
        "loader.called",
        f"{_LOADING}:set_param_for_module",
        {
            "parameter": Computed(_parameter_of, _OF_THE_MODEL),
            "parameter_name": "target_name",
            "tensor": "param_value",
            "filled": Computed(_parameter_of, _OF_THE_MODEL),
        },
    ),
    Tracepoint(
        "weights.process",
        "weights.processed",
        f"{_QUANTIZERS}.base:HfQuantizer+._process_model_after_weight_loading",
        {"layer": "model", "method": "self"},
    ),
    Tracepoint(
        "model.ready",
        "model.loaded",
        f"{_MODELING}:PreTrainedModel._finalize_model_loading",
        {
            "model": "model",
            "never_filled": Computed(_missing, _LOADED),
            "never_used": "loading_info.unexpected_keys",
            "initialised": Computed(_initialised, _LOADED),
            "refused": Computed(_refused, _LOADED),
        },
    ),
    Tracepoint(
        "forward.run",
        "forward.ran",
        f"{_MODELING}:PreTrainedModel+.forward",
        {"model": "self", "input_ids": "input_ids", "positions": "position_ids"},
    ),
)


def tp_rank() -> int:
    """The rank of this process in torch's default group or its launcher's, 0 without one."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        rank = os.environ.get("RANK", "")  # what a launcher such as torchrun said, before the group is there
        return int(rank) if rank.isdigit() else 0
    return int(distributed.get_rank())


def tp_size() -> int:
    """1 in a process alone; 0, not known, among several: they may as well have the whole model each."""
    distributed = sys.modules.get("torch.distributed")
    is_joined = distributed is not None and distributed.is_available() and distributed.is_initialized()
    said = (
        str(distributed.get_world_size()) if is_joined and distributed is not None else os.environ.get("WORLD_SIZE", "")
    )
    return int(said in {"", "1"})


def command(launch: Launch) -> tuple[str, ...]:
    """The argv of one load in one process, and of a greedy generation where token ids are given."""
    argv = [launch.python or sys.executable, "-m", f"{__package__}._transformers_launch", launch.model]
    argv += ["--device", launch.device, "--tp", str(launch.tp)]
    if launch.prompt_ids and launch.max_new_tokens:
        argv += ["--prompt-ids", ",".join(map(str, launch.prompt_ids)), "--max-new-tokens", str(launch.max_new_tokens)]
    return (*argv, *launch.extra)


ENGINE = Engine(
    name="transformers",
    module="transformers",
    distribution="transformers",
    rank=f"{__name__}:tp_rank",
    tp_size=f"{__name__}:tp_size",
    tracepoints=_TRACEPOINTS,
    command=command,
    takes_dtype=True,
    is_library=True,
    unwinding=(f"{_LOADING}.SkipParameters",),  # what failed in a conversion was raised before it
)
