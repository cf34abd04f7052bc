"""Writes plausible sessions with the real recorder: a qwen3-next-like FP8 load over four ranks, whole or failing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from inspectors.probe.events import (
    CheckpointOpened,
    EngineFound,
    ForwardRan,
    KernelLaunched,
    LoaderCalled,
    MethodSelected,
    ModelLoaded,
    ParameterRegistered,
    ShardSplit,
    SkipDecided,
    StageFailed,
    TensorListed,
    TensorRead,
    WeightsCreated,
    WeightsMapped,
    WeightsProcessed,
    WeightWritten,
)
from inspectors.probe.recorder import Recorder
from sessions.manifest import Manifest, Outcome

HIDDEN = 256
QUANTIZED = "float8_e4m3fn"
LINEAR = "linear_attn"


@dataclasses.dataclass
class Plan:
    """What to record and which defect to plant."""

    ranks: int = 4
    layers: int = 2
    level: str = "ledger"
    uses_wrong_fallback: bool = False
    drops_scale: bool = False
    leaves_out: str = ""
    loads_twice: str = ""
    ignored_extra: tuple[str, ...] = ()
    has_draft_tensors: bool = True
    scale_takes_other_rows: bool = False


def ignored(plan):
    names = ["lm_head"]
    for n in range(plan.layers):
        names += [f"model.layers.{n}.{LINEAR}.{m}" for m in ("in_proj_ba", "in_proj_qkvz", "conv1d")]
    return (*names, *plan.ignored_extra)


def modules(plan):
    """(module, rows, is quantized on disk)."""
    for n in range(plan.layers):
        at = f"model.layers.{n}.{LINEAR}"
        yield f"{at}.in_proj_qkvz", 1024, False
        yield f"{at}.in_proj_ba", 32, False
        yield f"{at}.out_proj", 1024, True
        yield f"{at}.conv1d", 128, False
    yield "lm_head", 512, False


def tensors(plan):
    for module, rows, is_quantized in modules(plan):
        yield f"{module}.weight", "F8_E4M3" if is_quantized else "BF16", (rows, HIDDEN)
        if is_quantized:
            yield f"{module}.weight_scale_inv", "F32", (rows // 128, HIDDEN // 128)
    if plan.has_draft_tensors:
        yield "mtp.fc.weight", "BF16", (HIDDEN, HIDDEN)


class Writer:
    def __init__(self, folder: Path, plan: Plan) -> None:
        self.plan = plan
        self.recorder = Recorder(folder, plan.level)

    def open_checkpoint(self) -> None:
        r, listed = self.recorder, list(tensors(self.plan))
        r.point(EngineFound("toy", "1.0", "toy.py"))
        size = sum(shape[0] * shape[1] for _, _, shape in listed)
        r.point(CheckpointOpened("/tiny", "Qwen3Next", "fp8", "{}", self.plan.layers, 1, len(listed), size))
        at = 0
        for name, dtype, shape in listed:
            size = shape[0] * shape[1] * {"F8_E4M3": 1, "BF16": 2, "F32": 4}[dtype]
            r.point(TensorListed(name, dtype, shape, "model-00001.safetensors", at, at + size))
            at += size

    def build(self, rank: int) -> bool:
        """Decide and create each module; False when the planted failure was reached."""
        r, names = self.recorder, ignored(self.plan)
        for module, rows, _ in modules(self.plan):
            if module.endswith("conv1d"):
                continue  # a layer that quantization never looks at
            tried, source = (module,), "none"
            if self.plan.uses_wrong_fallback and "in_proj" in module:
                prefix = module.rpartition(".")[0]
                parts = ("in_proj_b", "in_proj_a") if module.endswith("ba") else ("in_proj_qkv", "in_proj_z")
                tried, source = tuple(f"{prefix}.{p}" for p in parts), "fallback"
            entry = next((n for n, e in enumerate(names) if e in tried), -1)
            r.point(
                SkipDecided(module, entry >= 0, entry, names, tried, source, "is_layer_skipped", "skip.py:10"), rank
            )
            method = "UnquantizedLinearMethod" if entry >= 0 else "BlockLinearMethod"
            r.point(MethodSelected(module, "Linear", "Config", method, "config.py:5"), rank)
            sizes = (rows // self.plan.ranks,)
            span = r.begin(WeightsCreated(module, method, HIDDEN, sizes, "bfloat16", "m.py:1"), rank)
            if entry < 0 and rows // self.plan.ranks % 128:
                size = rows // self.plan.ranks
                what = f"Weight output_partition_size = {size} is not divisible by weight quantization block_n = 128."
                frames = ("m.py:3 create",)
                failed = StageFailed("ValueError", what, "m.py:3", frames, module, "", "", span, "weights.create")
                r.point(failed, rank)
                r.end(span)
                return False
            r.end(span)
        return True

    def parameters(self):
        """(parameter, checkpoint name, dtype, local shape, disk shape)."""
        for name, dtype, shape in tensors(self.plan):
            if not name.startswith("mtp."):
                spelled = {"F8_E4M3": QUANTIZED, "BF16": "bfloat16", "F32": "float32"}[dtype]
                yield name, spelled, (max(shape[0] // self.plan.ranks, 1), shape[1]), shape

    def load(self) -> None:
        r, ranks = self.recorder, range(self.plan.ranks)
        spans = {}
        for rank in ranks:
            spans[rank] = r.begin(WeightsMapped("Qwen3Next", 7), rank)
            for name, dtype, local, _ in self.parameters():
                r.point(ParameterRegistered(name, "Parameter", dtype, local, 0, self.loader_of(name), "l.py:4"), rank)
            r._spans.stack.clear()  # each rank is a thread of its own: the next rank's span is not inside this one
        for name, dtype, local, shape in self.parameters():
            if name == self.plan.leaves_out or (self.plan.drops_scale and name.endswith("scale_inv")):
                continue
            r.point(TensorRead(name, dtype, shape, 1))
            for rank in ranks:
                r._spans.stack[:] = [spans[rank]]
                for _ in range(2 if name == self.plan.loads_twice else 1):
                    self.call(name, dtype, local, shape, rank)
        for rank in ranks:
            r._spans.stack[:] = [spans[rank]]
            r.end(spans[rank])

    def loader_of(self, name: str) -> str:
        if self.plan.scale_takes_other_rows and name.endswith("out_proj.weight"):
            return "Model.make.<locals>.packed_loader"
        return "Linear.weight_loader"

    def call(self, name, dtype, local, shape, rank) -> None:
        r, start = self.recorder, local[0] * rank if shape[0] > 1 else 0
        loader = self.loader_of(name)
        body = LoaderCalled(name, name, "Parameter", dtype, local, dtype, shape, 1, "", -1, loader, "l.py:4")
        span = r.begin(body, rank)
        r.point(ShardSplit(name, name, 0, start, local[0], shape[0], "narrow"), rank)
        if self.plan.level != "calls":
            if self.plan.scale_takes_other_rows and name.endswith("scale_inv"):
                start = (start + local[0] * 2) % shape[0]
            r.point(WeightWritten(name, (0, 0), local, local[0] * local[1], "", (start, 0), local, "copy_"), rank)
        r.end(span, dataclasses.replace(body, outcome="returned"))

    def finish(self) -> None:
        r = self.recorder
        for rank in range(self.plan.ranks):
            for module, _, _ in modules(self.plan):
                r.end(r.begin(WeightsProcessed(module, "Method", "m.py:9"), rank))
            r.point(ModelLoaded(7, (self.plan.leaves_out,) if self.plan.leaves_out else (), ()), rank)
        for rank in range(self.plan.ranks):
            span = r.begin(ForwardRan("Qwen3Next", "prefill", 5), rank)
            for n in range(self.plan.layers):
                launch = KernelLaunched("toy::norm", "custom", f"model.layers.{n}.norm", ("bfloat16[5,256]",))
                r.end(r.begin(launch, rank))
            r.end(span)


def write_session(folder: Path, plan: Plan | None = None) -> Path:
    """A session in `folder`; its load fails when the plan's fallback table is the wrong one."""
    plan = plan or Plan()
    folder.mkdir(parents=True, exist_ok=True)
    writer = Writer(folder, plan)
    writer.open_checkpoint()
    is_built = all(writer.build(rank) for rank in range(plan.ranks))
    if is_built:
        writer.load()
        writer.finish()
    writer.recorder.close()
    outcome = Outcome("ok" if is_built else "failed", 0 if is_built else 1, None, "2026-01-01T00:00:00Z", 1.0)
    told = Manifest(id="t", verb="trace", level=plan.level, engine="toy", tp=plan.ranks, name="tiny", outcome=outcome)
    told.write(folder)
    return folder
