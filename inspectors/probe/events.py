"""The event schema: one small documented class a kind; writers only add fields, readers keep what they do not know."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable

SCHEMA_VERSION = 1
NO_RANK = -1


@dataclass(frozen=True)
class Body:
    """The facts of one event. `kind` is `noun.participle`, `stage` an engine-neutral step or empty."""

    kind: ClassVar[str]
    stage: ClassVar[str] = ""


@dataclass(frozen=True)
class ProcessStarted(Body):
    """A host process armed itself; the first event of its stream."""

    kind: ClassVar[str] = "process.started"
    pid: int = 0
    parent_pid: int = 0
    argv: tuple[str, ...] = ()
    python: str = ""
    level: str = ""


@dataclass(frozen=True)
class EngineFound(Body):
    """An engine's module was imported and its tracepoints were set."""

    kind: ClassVar[str] = "engine.found"
    engine: str = ""
    version: str = ""
    module_file: str = ""


@dataclass(frozen=True)
class TracepointMissing(Body):
    """A tracepoint of a known engine did not resolve: what it would have seen is not in this session."""

    kind: ClassVar[str] = "tracepoint.missing"
    engine: str = ""
    target: str = ""
    wanted_stage: str = ""
    reason: str = ""


@dataclass(frozen=True)
class InspectorFaulted(Body):
    """An inspector raised and was disabled; the host went on untouched."""

    kind: ClassVar[str] = "inspector.faulted"
    inspector: str = ""
    error: str = ""
    where: str = ""


@dataclass(frozen=True)
class RecordingCapped(Body):
    """A limit on events or size was reached; later events are counted, not kept."""

    kind: ClassVar[str] = "recording.capped"
    limit: str = ""
    value: int = 0


@dataclass(frozen=True)
class StageFailed(Body):
    """A host exception passed through a tracepoint, unchanged. Recorded once, at the innermost tracepoint.

    `call` is the seq of the span it left, `frames` are `file:line function`, innermost first.
    """

    kind: ClassVar[str] = "stage.failed"
    error: str = ""
    message: str = ""
    where: str = ""
    frames: tuple[str, ...] = ()
    module: str = ""
    parameter: str = ""
    checkpoint_name: str = ""
    call: int = 0
    failed_stage: str = ""


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
    """A weight_loader's call (span). `shard_id`: its repr or "". `outcome`: "returned", "raised", "" while it runs."""

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


@dataclass(frozen=True)
class ValueSummarized(Body):
    """Statistics of a parameter after a loader call (level `values`)."""

    kind: ClassVar[str] = "value.summarized"
    stage: ClassVar[str] = "weight.load"
    parameter: str = ""
    absmax: float = 0.0
    mean: float = 0.0
    rms: float = 0.0
    nan_count: int = 0
    inf_count: int = 0
    zero_fraction: float = 0.0


@dataclass(frozen=True)
class WeightsProcessed(Body):
    """`process_weights_after_loading` of one module (span)."""

    kind: ClassVar[str] = "weights.processed"
    stage: ClassVar[str] = "weights.process"
    module: str = ""
    method: str = ""
    where: str = ""


@dataclass(frozen=True)
class ModelLoaded(Body):
    """A rank's model is ready; what the engine says was never filled and never used, if it says so (`has_report`)."""

    kind: ClassVar[str] = "model.loaded"
    stage: ClassVar[str] = "model.ready"
    parameters: int = 0
    never_filled: tuple[str, ...] = ()
    never_used: tuple[str, ...] = ()
    has_report: bool = True


@dataclass(frozen=True)
class ForwardRan(Body):
    """One forward pass of one rank (span). `phase` is "prefill" or "decode"."""

    kind: ClassVar[str] = "forward.ran"
    stage: ClassVar[str] = "forward.run"
    model_class: str = ""
    phase: str = ""
    tokens: int = 0


@dataclass(frozen=True)
class KernelLaunched(Body):
    """One op or Triton launch in a forward pass (span). `launcher` is "aten", "custom", "triton" or "method".

    `shapes` are the tensor arguments as "dtype[a,b]", `outputs` likewise; `grid` is empty unless Triton.
    """

    kind: ClassVar[str] = "kernel.launched"
    stage: ClassVar[str] = "kernel.launch"
    name: str = ""
    launcher: str = ""
    module: str = ""
    shapes: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    grid: tuple[int, ...] = ()
    options: str = ""


@dataclass(frozen=True)
class TensorKept(Body):
    """A tensor of a forward pass is in the session's `tensors/` (level `tensors`).

    `role` is "input" or "output" of `module` ("" is the model itself), `index` counts the tensors of that role,
    `forward` the passes of the model. `name` is the tensor's name in `file`; one that passes through several modules
    unchanged is kept once and told of several times.
    """

    kind: ClassVar[str] = "tensor.kept"
    stage: ClassVar[str] = "forward.run"
    module: str = ""
    role: str = ""
    index: int = 0
    forward: int = 0
    file: str = ""
    name: str = ""
    dtype: str = ""
    shape: tuple[int, ...] = ()
    size_bytes: int = 0


@dataclass(frozen=True)
class FieldSpec:
    """One column of a kind: its name and how it is stored ("int", "real", "bool", "text" or "json")."""

    name: str
    storage: str


_STORAGES = {"int": "int", "float": "real", "bool": "bool", "str": "text"}


_specs_by_class: dict[type[Body], tuple[FieldSpec, ...]] = {}


def field_specs(body_class: type[Body]) -> tuple[FieldSpec, ...]:
    """The columns of a kind in declaration order; tuples are stored as JSON text."""
    known = _specs_by_class.get(body_class)
    if known is None:
        known = tuple(FieldSpec(f.name, _STORAGES.get(str(f.type), "json")) for f in fields(body_class))
        _specs_by_class[body_class] = known
    return known


KINDS: dict[str, type[Body]] = {cls.kind: cls for cls in Body.__subclasses__()}
"""Every kind this version knows, by name."""


def _quick_init(kind: type[Body]) -> Callable[..., None]:
    """The constructor of a frozen dataclass whose fields all have defaults, several times faster than its own."""
    defaults = {one.name: one.default for one in fields(kind)}
    names, size = tuple(defaults), len(defaults)

    def init(self: Body, *args: object, **kwargs: object) -> None:
        facts = self.__dict__
        facts.update(defaults)
        if args:
            facts.update(zip(names, args, strict=False))
        facts.update(kwargs)
        if len(facts) != size or len(args) > size:
            raise TypeError(f"{kind.__name__} has the fields {', '.join(names)}, not {sorted({*facts} - {*names})}")

    return init


for _kind in KINDS.values():
    _kind.__init__ = _quick_init(_kind)  # type: ignore[method-assign]
