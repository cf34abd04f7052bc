"""The events of a forward pass: kernels chosen and launched, tensors kept, values summarized."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from inspectors.probe.body import Body


@dataclass(frozen=True)
class KernelChosen(Body):
    """Which implementation of an operation a module runs. `refused` are the others as "name: reason"."""

    kind: ClassVar[str] = "kernel.chosen"
    stage: ClassVar[str] = "kernel.select"
    module: str = ""
    op: str = ""
    kernel: str = ""
    refused: tuple[str, ...] = ()
    where: str = ""


@dataclass(frozen=True)
class ForwardRan(Body):
    """One forward pass of one rank (span). `phase` is "prefill" or "decode".

    `device_times` is "profiler" where the launches' device times were taken, else why not; "" where nobody asked.
    """

    kind: ClassVar[str] = "forward.ran"
    stage: ClassVar[str] = "forward.run"
    model_class: str = ""
    phase: str = ""
    tokens: int = 0
    device_times: str = ""


@dataclass(frozen=True)
class KernelLaunched(Body):
    """One op or Triton launch in a forward pass (span). `launcher` is "aten", "custom", "triton" or "method".

    `shapes` are the tensor arguments as "dtype[a,b]", `outputs` likewise; `grid` is empty unless Triton.
    `strides` are those of the tensor arguments, in elements, as "[a,b]"; `alignments` (not of aten) are the powers of
    two, up to 512, that divide the place of their first elements in their storages, in bytes. `device_ns` is what the
    device worked for it and all it launched. Numbers that nobody told are -1.
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
    strides: tuple[str, ...] = ()
    num_warps: int = -1
    num_stages: int = -1
    shared_bytes: int = -1
    registers: int = -1
    spills: int = -1
    device_ns: int = -1
    alignments: tuple[int, ...] = ()


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
class ValueSummarized(Body):
    """Statistics of one tensor (level `values`): `role` is "parameter", "scale", "input" or "output" (of `module`).

    The envelope's stage says when: weight.map (all weights are loaded), weights.process (its layer was processed),
    forward.run (the first pass), weight.load (after one loader call, in recordings of before). `index` counts the
    tensors of one role. Fractions are of all elements; subnormal and saturated (at the largest finite value) as the
    dtype defines them, -1 where it does not; the others are of the finite elements.
    """

    kind: ClassVar[str] = "value.summarized"
    stage: ClassVar[str] = "weight.load"
    parameter: str = ""
    absmax: float = 0.0
    mean: float = 0.0
    rms: float = 0.0
    nan_count: int = 0
    inf_count: int = 0
    zero_fraction: float = 0.0
    role: str = "parameter"
    module: str = ""
    dtype: str = ""
    shape: tuple[int, ...] = ()
    minimum: float = 0.0
    maximum: float = 0.0
    subnormal_fraction: float = 0.0
    saturated_fraction: float = 0.0
    index: int = 0
