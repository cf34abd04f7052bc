"""What is recorded of SGLang's loads against what was counted without the probe, for architectures and formats."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from safetensors.torch import load_file

from sessions.parameters import parameters

pytestmark = pytest.mark.engine
NEWEST = "0.5.23"
QWEN3, MOE, NEXT, QWEN3_5 = (
    "Qwen3ForCausalLM", "Qwen3MoeForCausalLM", "Qwen3NextForCausalLM", "Qwen3_5ForConditionalGeneration",
)  # fmt: skip
FORMS = {
    QWEN3: ("bf16", "fp8", "fp8-tensor", "w8a8", "nvfp4"), MOE: ("bf16", "fp8", "fp8-tensor", "w8a8", "nvfp4"),
    NEXT: ("bf16", "fp8", "fp8-tensor", "w8a8", "nvfp4"), QWEN3_5: ("bf16", "fp8", "fp8-tensor", "w8a8", "nvfp4"),
}  # fmt: skip
LOADED = [(NEWEST, f"{architecture}/{form}") for architecture, forms in FORMS.items() for form in forms]
OLDER = [(version, name) for version in ("0.5.10", "0.5.11") for name in ("fp8_block", "packed_int8")]
BLOCKS = [(NEWEST, f"{QWEN3}/gguf"), (NEWEST, f"{MOE}/gguf")]
FLOAT4_EXPERTS = {f"{MOE}/nvfp4", f"{NEXT}/nvfp4"}
ALL = [*LOADED, *OLDER, *BLOCKS]


@pytest.fixture(scope="module")
def both(trace, untraced):
    """A load under the probe and the same without, rank 1 of 2."""

    def loads(version, checkpoint):
        return trace(version, checkpoint, tp=2), untraced(version, checkpoint, tp=2)

    return loads


@pytest.mark.parametrize(("version", "checkpoint"), ALL)
def test_calls_and_filled_elements_are_those_that_were_counted_without_the_probe(both, version, checkpoint):
    traced, without = both(version, checkpoint)
    calls = traced.of("loader.called")
    assert Counter(call.body.loader.rpartition(".")[2] for call in calls) == without["counted"]
    assert {(call.body.outcome, call.rank) for call in calls} == {("returned", 1)}
    assert all(call.body.parameter and call.body.checkpoint_name for call in calls)
    views = {view.name: view for view in parameters(traced.session)}
    assert {n: v.elements - v.coverage.never_written for n, v in views.items() if n in without["filled"]} == without[
        "filled"
    ]
    assert traced.of("tracepoint.missing") == traced.of("inspector.faulted") == traced.of("write.suspected") == []


@pytest.mark.parametrize(("version", "checkpoint"), ALL)
def test_parameters_are_the_same_with_and_without_the_probe(both, version, checkpoint):
    traced, without = both(version, checkpoint)
    assert len(traced.told["processed"]) > 15
    filled = {name for name, count in without["filled"].items() if count}
    for what in ("loaded", "processed"):
        told = {name: digest for name, digest in traced.told[what].items() if name in filled}
        assert told == {name: digest for name, digest in without[what].items() if name in filled}
    assert traced.told["processed"].keys() == without["processed"].keys()


@pytest.mark.parametrize(("version", "checkpoint"), [*LOADED, *OLDER])
def test_the_ledger_rebuilds_the_parameters_from_the_checkpoint(both, checkpoints, version, checkpoint):
    traced, _ = both(version, checkpoint)
    on_disk = {}
    for file in checkpoints(checkpoint).glob("*.safetensors"):
        on_disk.update(load_file(file))
    held, wrong, compared = torch.load(traced.kept), [], 0
    for view in (view for view in parameters(traced.session) if view.writes):
        real = held[view.name]
        rebuilt = torch.full_like(real, 99)
        for write in view.writes:
            source = on_disk[write.checkpoint_name].reshape(-1)
            taken = source.as_strided(write.length, write.source_strides, max(write.source_offset, 0))
            rebuilt[tuple(slice(a, a + n) for a, n in zip(write.start, write.length, strict=True))] = taken.to(
                real.dtype
            )
        compared += 1
        same = torch.equal(rebuilt.reshape(-1).view(torch.uint8), real.reshape(-1).view(torch.uint8))
        wrong += [] if same or view.coverage.never_written else [view.name]
    assert wrong == []
    assert compared > 20


@pytest.mark.parametrize(("version", "checkpoint"), [*LOADED, *BLOCKS])
def test_a_sound_load_has_no_errors_and_every_tensor_is_read_once(both, version, checkpoint):
    traced, _ = both(version, checkpoint)
    # Qwen3.5 builds a model of images, for which these checkpoints have nothing; each of an expert's gate and up
    # writes the input scales of both.
    titles = ["no loader call filled 39 parameters of visual"] if checkpoint.startswith(QWEN3_5) else []
    titles += ["experts.w13_input_scale was written twice"] if checkpoint in FLOAT4_EXPERTS else []
    assert (traced.code, traced.verdict["outcome"]) == (0, "ok")
    assert [one["title"] for one in traced.verdict["findings"]] == titles
    read = Counter(event.body.checkpoint_name for event in traced.of("tensor.read"))
    assert set(read.values()) == {1}
    if not checkpoint.endswith("gguf"):
        assert read.keys() == {event.body.checkpoint_name for event in traced.of("tensor.listed")}
