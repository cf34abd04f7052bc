"""The event schema: one small documented class a kind; writers only add fields, readers keep what they do not know."""

from __future__ import annotations

from inspectors.probe.body import NO_RANK, SCHEMA_VERSION, Body, FieldSpec, field_specs, quick_init
from inspectors.probe.forward_events import (
    ForwardRan,
    KernelChosen,
    KernelLaunched,
    TensorKept,
    ValueSummarized,
)
from inspectors.probe.load_events import (
    CheckpointOpened,
    LoaderCalled,
    MethodSelected,
    ModelLoaded,
    ParameterRegistered,
    ShardSplit,
    SkipDecided,
    TensorListed,
    TensorRead,
    WeightRepacked,
    WeightsCreated,
    WeightsMapped,
    WeightsProcessed,
    WeightWritten,
    WriteSuspected,
)
from inspectors.probe.process_events import (
    EngineFound,
    InspectorFaulted,
    MemorySampled,
    ProcessStarted,
    RankJoined,
    RecordingCapped,
    StageFailed,
    StageTimed,
    TracepointMissing,
)

KINDS: dict[str, type[Body]] = {cls.kind: cls for cls in Body.__subclasses__()}
"""Every kind this version knows, by name."""

for _kind in KINDS.values():
    _kind.__init__ = quick_init(_kind)  # type: ignore[method-assign]

__all__ = [
    "KINDS",
    "NO_RANK",
    "SCHEMA_VERSION",
    "Body",
    "CheckpointOpened",
    "EngineFound",
    "FieldSpec",
    "ForwardRan",
    "InspectorFaulted",
    "KernelChosen",
    "KernelLaunched",
    "LoaderCalled",
    "MemorySampled",
    "MethodSelected",
    "ModelLoaded",
    "ParameterRegistered",
    "ProcessStarted",
    "RankJoined",
    "RecordingCapped",
    "ShardSplit",
    "SkipDecided",
    "StageFailed",
    "StageTimed",
    "TensorKept",
    "TensorListed",
    "TensorRead",
    "TracepointMissing",
    "ValueSummarized",
    "WeightRepacked",
    "WeightWritten",
    "WeightsCreated",
    "WeightsMapped",
    "WeightsProcessed",
    "WriteSuspected",
    "field_specs",
]
