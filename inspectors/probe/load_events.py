"""The events of a load: checkpoint, decisions, parameters, loader calls and the writes inside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from inspectors.probe.body import Body


@dataclass(frozen=True)
class CheckpointOpened(Body):
    """A checkpoint was opened. `quantization_config` is the JSON text found in config.json, empty if none."""

    kind: ClassVar[str] = "checkpoint.opened"
    stage: ClassVar[str] = "checkpoint.open"
    path: str = ""
    architecture: str = ""
    quant_method: str = ""
    quantization_config: str = ""
    layers: int = 0
    files: int = 0
    tensors: int = 0
    size_bytes: int = 0


@dataclass(frozen=True)
class TensorListed(Body):
    """One tensor as the header of its checkpoint file declares it; `begin`/`end` are byte offsets in the file."""

    kind: ClassVar[str] = "tensor.listed"
    stage: ClassVar[str] = "checkpoint.open"
    checkpoint_name: str = ""
    dtype: str = ""
    shape: tuple[int, ...] = ()
    file: str = ""
    begin: int = 0
    end: int = 0


@dataclass(frozen=True)
class TensorRead(Body):
    """The engine's weights iterator yielded a tensor (span: the time it took to produce it)."""

    kind: ClassVar[str] = "tensor.read"
    stage: ClassVar[str] = "tensor.read"
    checkpoint_name: str = ""
    dtype: str = ""
    shape: tuple[int, ...] = ()
    size_bytes: int = 0


@dataclass(frozen=True)
class SkipDecided(Body):
    """Whether a module stays unquantized. `matched_entry` is the index in `ignored`, -1 for none of them.

    `tried` are the names compared with the list, `expansion_source` is where a fused name's parts came from:
    "model", "fallback" or "none". `where` is the file and line that decided.
    """

    kind: ClassVar[str] = "skip.decided"
    stage: ClassVar[str] = "method.select"
    module: str = ""
    is_skipped: bool = False
    matched_entry: int = -1
    ignored: tuple[str, ...] = ()
    tried: tuple[str, ...] = ()
    expansion_source: str = ""
    rule: str = ""
    where: str = ""


@dataclass(frozen=True)
class MethodSelected(Body):
    """The quantization method chosen for one module."""

    kind: ClassVar[str] = "method.selected"
    stage: ClassVar[str] = "method.select"
    module: str = ""
    layer_class: str = ""
    config_class: str = ""
    method: str = ""
    where: str = ""


@dataclass(frozen=True)
class WeightsCreated(Body):
    """A method created the parameters of one module (span)."""

    kind: ClassVar[str] = "weights.created"
    stage: ClassVar[str] = "weights.create"
    module: str = ""
    method: str = ""
    input_size_per_partition: int = 0
    output_partition_sizes: tuple[int, ...] = ()
    params_dtype: str = ""
    where: str = ""


@dataclass(frozen=True)
class ParameterRegistered(Body):
    """One parameter before the load; shape is this rank's, `built_as` its module's name when built, if another."""

    kind: ClassVar[str] = "parameter.registered"
    stage: ClassVar[str] = "weights.create"
    parameter: str = ""
    parameter_class: str = ""
    dtype: str = ""
    shape: tuple[int, ...] = ()
    size_bytes: int = 0
    loader: str = ""
    where: str = ""
    built_as: str = ""


@dataclass(frozen=True)
class WeightsMapped(Body):
    """One run of a model's `load_weights` (span): every loader call lies inside."""

    kind: ClassVar[str] = "weights.mapped"
    stage: ClassVar[str] = "weight.map"
    model_class: str = ""
    parameters: int = 0


@dataclass(frozen=True)
class LoaderCalled(Body):
    """A weight_loader's call (span). `shard_id`: its repr or "". `outcome`: "returned", "raised", "" while it runs.

    `checkpoint_name` are several joined by ", " where the engine made the tensor of several ones before.
    """

    kind: ClassVar[str] = "loader.called"
    stage: ClassVar[str] = "weight.load"
    checkpoint_name: str = ""
    parameter: str = ""
    parameter_class: str = ""
    parameter_dtype: str = ""
    parameter_shape: tuple[int, ...] = ()
    tensor_dtype: str = ""
    tensor_shape: tuple[int, ...] = ()
    tensor_bytes: int = 0
    shard_id: str = ""
    expert_id: int = -1
    loader: str = ""
    where: str = ""
    outcome: str = ""


@dataclass(frozen=True)
class ShardSplit(Body):
    """A loader cut the checkpoint tensor: `length` of `size` along `dim`, from `start`, of the tensor as cut so far."""

    kind: ClassVar[str] = "shard.split"
    stage: ClassVar[str] = "shard.split"
    parameter: str = ""
    checkpoint_name: str = ""
    dim: int = 0
    start: int = 0
    length: int = 0
    size: int = 0
    operation: str = ""


@dataclass(frozen=True)
class WeightWritten(Body):
    """One write into a parameter inside a loader call (level `ledger`).

    `start`/`length` are the box per dimension of the parameter; `source_start`/`source_length` the box of the
    checkpoint tensor, empty when it is not a plain box of it (then `source` says what it is).
    `source_offset`/`source_strides` are the same as an exact map: element [i] of the box holds the element number
    `source_offset + sum((i_d - start_d) * source_strides_d)`, row-major, of the checkpoint tensor; -1: no such map.
    With `bytes` in `source` offset and strides count bytes of that tensor; an element holds as many as it has.
    `checkpoint_name` names that tensor where it is not the call's; `runs` is the place of a write that is no box:
    first element, count, first element, count ... by the parameter's elements in row-major order.
    """

    kind: ClassVar[str] = "weight.written"
    stage: ClassVar[str] = "weight.load"
    parameter: str = ""
    start: tuple[int, ...] = ()
    length: tuple[int, ...] = ()
    elements: int = 0
    source: str = ""
    source_start: tuple[int, ...] = ()
    source_length: tuple[int, ...] = ()
    operation: str = ""
    checkpoint_name: str = ""
    source_offset: int = -1
    source_strides: tuple[int, ...] = ()
    runs: tuple[int, ...] = ()


@dataclass(frozen=True)
class WriteSuspected(Body):
    """Memory of a parameter changed in a way that the ledger could not follow: its elements are not to be trusted.

    `reason` tells what was seen, `operation` by which operator, if one (level `ledger`).
    """

    kind: ClassVar[str] = "write.suspected"
    stage: ClassVar[str] = "weight.load"
    parameter: str = ""
    operation: str = ""
    reason: str = ""


@dataclass(frozen=True)
class WeightsProcessed(Body):
    """`process_weights_after_loading` of one module (span).

    `joined` are shard ids of blocks that were held aside until now, in the order in which the engine joins them.
    """

    kind: ClassVar[str] = "weights.processed"
    stage: ClassVar[str] = "weights.process"
    module: str = ""
    method: str = ""
    where: str = ""
    joined: tuple[str, ...] = ()


@dataclass(frozen=True)
class WeightRepacked(Body):
    """Post-processing filled a box of a parameter from `from_parameter` as the load had left it (level `ledger`).

    `source_offset`/`source_strides` map as in `WeightWritten`, into that parameter; -1 where the values were computed
    from it, or from several (joined by ", "; `source` says how: "computed by ...", "constant", or "unknown").
    `source` is "removed", without a box, for a parameter that is gone.
    """

    kind: ClassVar[str] = "weight.repacked"
    stage: ClassVar[str] = "weights.process"
    parameter: str = ""
    dtype: str = ""
    shape: tuple[int, ...] = ()
    start: tuple[int, ...] = ()
    length: tuple[int, ...] = ()
    elements: int = 0
    from_parameter: str = ""
    source: str = ""
    source_offset: int = -1
    source_strides: tuple[int, ...] = ()
    operation: str = ""


@dataclass(frozen=True)
class ModelLoaded(Body):
    """A rank's model is ready; what the engine says was never filled and never used, if it says so (`has_report`).

    `initialised` tells for each of `never_filled` what the engine has put there itself ("random, standard deviation
    0.02"), "" for nothing that was seen; () for an engine that leaves them. Each of `tied` is the same tensor as the
    parameter of that place in `tied_to`.
    """

    kind: ClassVar[str] = "model.loaded"
    stage: ClassVar[str] = "model.ready"
    parameters: int = 0
    never_filled: tuple[str, ...] = ()
    never_used: tuple[str, ...] = ()
    has_report: bool = True
    initialised: tuple[str, ...] = ()
    tied: tuple[str, ...] = ()
    tied_to: tuple[str, ...] = ()
