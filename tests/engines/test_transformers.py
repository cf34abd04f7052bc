"""transformers, unmodified: what is recorded of its loads, that it changes nothing, and what its own report becomes."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sessions.checkpoint import consumption
from sessions.decisions import decisions
from sessions.parameters import parameters
from sessions.session import Session
from workbench.coverage.elementview import element_report, element_text
from workbench.diagnosis.verdict import findings

transformers = pytest.importorskip("transformers", minversion="5.0")
pytest.importorskip("compressed_tensors")

LOADS = importlib.util.spec_from_file_location("transformers_loads", Path(__file__).with_name("transformers_loads.py"))
hosts = importlib.util.module_from_spec(LOADS)
LOADS.loader.exec_module(hosts)

UP, EXPERTS = "model.layers.1.mlp.up_proj.weight", "model.layers.0.mlp.experts"
SOUND = ("LlamaForCausalLM", "Qwen3ForCausalLM", "Qwen3MoeForCausalLM", "Qwen3NextForCausalLM",
         "Qwen3_5ForConditionalGeneration", "Qwen3MoeForCausalLM/fp8", "LlamaForCausalLM/w8a8")  # fmt: skip
FLAWED = ("missing", "unexpected", "shape", "expert")


class Loads:
    """The same loads in two processes, with the probe and without, and the session of each."""

    def __init__(self, told: dict[str, Any], bare: dict[str, Any], folders: dict[str, Path], sessions: Path) -> None:
        self.told, self.bare, self.folders, self._sessions = told, bare, folders, sessions

    @contextlib.contextmanager
    def session(self, name: str):
        opened = Session.open(self._sessions / name.replace("/", "-"))
        yield opened
        opened.close()

    def real(self, name: str) -> dict[str, torch.Tensor]:
        return torch.load(self._sessions / name.replace("/", "-") / "parameters.pt")

    def on_disk(self, name: str) -> dict[str, torch.Tensor]:
        return {n: t for file in self.folders[name].glob("*.safetensors") for n, t in load_file(file).items()}


@pytest.fixture(scope="module")
def loads(tmp_path_factory) -> Loads:
    root, sessions = tmp_path_factory.mktemp("checkpoints"), tmp_path_factory.mktemp("sessions")
    folders = {name: hosts.written(root / name.replace("/", "-"), name) for name in SOUND}
    llama, moe = folders["LlamaForCausalLM"], folders["Qwen3MoeForCausalLM"]
    odd = {"model.layers.0.mlp.odd.weight": torch.zeros(3)}
    changes = (
        (llama, lambda tensors: tensors.pop(UP)),
        (llama, lambda tensors: tensors.update(odd)),
        (llama, lambda tensors: tensors.update({UP: torch.zeros(3, 256, dtype=torch.bfloat16)})),
        (moe, lambda tensors: tensors.update({f"{EXPERTS}.3.down_proj.weight": torch.zeros(2, 2)})),
    )
    for name, (sound, change) in zip(FLAWED, changes, strict=True):
        folders[name] = hosts.flawed(root / name, sound, change)
    given: dict[str, Any] = {}
    for name in (*folders, "decisions"):
        session = sessions / name.replace("/", "-")
        session.mkdir()
        (session / "session.json").write_text(json.dumps(hosts.MANIFEST))
        if name in folders:
            given[name] = {"model": str(folders[name]), "session": str(session)}
    told = hosts.run_host(given, sessions / "LlamaForCausalLM", str(sessions / "decisions"), str(moe))
    bare = hosts.run_host({name: {**one, "session": ""} for name, one in given.items()}, None)
    return Loads(told, bare, folders, sessions)


def of(session: Session, *kinds: str) -> list[Any]:
    return [event.body for event in session.of_kinds(*kinds)]


def test_every_tracepoint_is_found_in_the_sources_of_the_installed_version():
    done = subprocess.run(
        [sys.executable, "-c", hosts.RUN, "doctor", "--engine", "transformers", "--json"],
        capture_output=True, text=True, check=False, env=hosts.environment(None),
    )  # fmt: skip
    told = json.loads(done.stdout)
    assert (done.returncode, told["engine_version"]) == (0, transformers.__version__), done.stdout
    assert all(one["places"] and not one["lacks"] for one in told["tracepoints"])


@pytest.mark.parametrize("name", SOUND)
def test_a_load_is_recorded_whole_and_changes_nothing(loads, name):
    told, bare = loads.told[name], loads.bare[name]
    assert (told["sha256"], told["tokens"]) == (bare["sha256"], bare["tokens"])
    with loads.session(name) as session:
        calls = of(session, "loader.called")
        made = Counter(call.loader.rpartition(".")[2] for call in calls)
        # `convert` is counted of the operations and, taking no input_dict, not of the transforms around them.
        assert made == {
            key: bare["counted"][key] for key in ("set_param_for_module", "convert") if key in bare["counted"]
        }
        assert {call.outcome for call in calls} == {"returned"}
        assert all(call.parameter and call.checkpoint_name for call in calls)
        listed = Counter(tensor.checkpoint_name for tensor in of(session, "tensor.listed"))
        assert Counter(read.checkpoint_name for read in of(session, "tensor.read")) == listed
        assert bare["counted"]["_materialize_copy"] == bare["reads_elsewhere"] == len(listed)
        assert (
            of(session, "tracepoint.missing") == of(session, "inspector.faulted") == of(session, "stage.failed") == []
        )
        assert [ran.phase for ran in of(session, "forward.ran")] == ["prefill", "decode"]
        assert {one.class_ for one in findings(session)} <= {"precision/narrowed"}


def rebuilt(view, real, on_disk):
    """What the ledger's maps make of the files; elements that were computed are left as they are."""
    made = torch.full_like(real, 77)
    for write in view.writes:
        box = tuple(slice(begin, begin + count) for begin, count in zip(write.start, write.length, strict=True))
        if write.source_offset < 0:
            made[box] = real[box]
            continue
        assert write.checkpoint_name in on_disk
        flat = on_disk[write.checkpoint_name].reshape(-1)
        places = torch.full(write.length, write.source_offset)
        for dim, (count, stride) in enumerate(zip(write.length, write.source_strides, strict=True)):
            places += (torch.arange(count) * stride).view([-1 if dim == d else 1 for d in range(len(write.length))])
        made[box] = flat[places].to(real.dtype)
    return made


@pytest.mark.parametrize("name", SOUND)
def test_the_ledger_rebuilds_every_parameter_from_the_files(loads, name):
    real, on_disk = loads.real(name), loads.on_disk(name)
    with loads.session(name) as session:
        views = parameters(session)
        assert {view.name for view in views} == {name for name in real if not name.endswith("inv_freq")}
        for view in views:
            assert (view.coverage.never_written, view.coverage.written_twice) == (0, 0), view.name
            assert sum(write.elements for write in view.writes) == view.elements, view.name
            assert {write.position for write in view.writes} == {view.calls[-1]}, view.name
            computed = {write.source for write in view.writes if write.source_offset < 0}
            is_quantized = any(t.dtype == torch.float8_e4m3fn for t in map(on_disk.get, used(view)))
            assert bool(computed) == is_quantized, (view.name, computed)
            assert torch.equal(bits(rebuilt(view, real[view.name], on_disk)), bits(real[view.name])), view.name
        assert all(one.calls and one.never_consumed_bytes in {0, None} for one in consumption(session))


def used(view) -> set[str]:
    return {name for write in view.writes for name in write.checkpoint_name.split(", ")}


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def test_a_parameter_merged_of_many_tensors_names_them_and_the_operations_that_merged_them(loads):
    with loads.session("Qwen3MoeForCausalLM") as session:
        (view,) = (view for view in parameters(session) if view.name == f"{EXPERTS}.gate_up_proj")
        names = {f"{EXPERTS}.{n}.{part}_proj.weight" for n in range(view.shape[0]) for part in ("gate", "up")}
        assert len(names) == 16
        assert used(view) == names
        assert {(w.checkpoint_name.split(".")[5], w.start[0]) for w in view.writes} == {(str(n), n) for n in range(8)}
        assert [call.loader.rpartition("core_model_loading.")[2] for call in view.loader_calls] == [
            "MergeModulelist.convert", "Concatenate.convert", "set_param_for_module",
        ]  # fmt: skip
        assert all(set(call.checkpoint_name.split(", ")) == names for call in view.loader_calls)


def test_a_dequantized_parameter_says_how_it_was_computed_and_of_what(loads):
    with loads.session("Qwen3MoeForCausalLM/fp8") as session:
        (view,) = (v for v in parameters(session) if v.name == "model.layers.0.self_attn.q_proj.weight")
        (write,) = view.writes
        assert write.source.startswith("computed by aten::mul")
        assert used(view) == {view.name, f"{view.name}_scale_inv"}
        whole, *of_modules = of(session, "method.selected")
        assert (whole.method, whole.config_class) == ("FineGrainedFP8HfQuantizer", "FineGrainedFP8Config")
        assert {(one.module, one.method) for one in of_modules} >= {
            (EXPERTS, "Fp8Dequantize"), (view.module, "Fp8Dequantize"),
        }  # fmt: skip
        made = {one.module: one for one in decisions(session)}
        assert made[EXPERTS].is_dequantized
        assert not any(one.is_contradiction for one in made.values())


def test_a_scale_that_is_read_in_another_dtype_than_the_file_has_is_told_as_cast(loads):
    with loads.session("LlamaForCausalLM/w8a8") as session:
        name = "model.layers.0.self_attn.q_proj.weight_scale"
        assert [one.dtype for one in of(session, "tensor.listed") if one.checkpoint_name == name] == ["F32"]
        assert [one.dtype for one in of(session, "tensor.read") if one.checkpoint_name == name] == ["bfloat16"]
        (view,) = (view for view in parameters(session) if view.name == name)
        assert [write.source for write in view.writes] == ["cast float32 to bfloat16"]
        stored = loads.on_disk("LlamaForCausalLM/w8a8")[name][3, 0]
        report = element_report(session, f"{name}[3,0]", None)
        assert report.values[0].raw == stored.numpy().tobytes()
        assert f"loaded   {stored.bfloat16().item()!r} in bfloat16" in "\n".join(element_text(report))
        (narrowed,) = findings(session)
        scales = [t for n, t in loads.on_disk("LlamaForCausalLM/w8a8").items() if n.endswith("scale")]
        changed = sum(int((t.bfloat16().float() != t).sum()) for t in scales)
        assert (narrowed.class_, narrowed.severity, changed > 0) == ("precision/narrowed", "note", True)
        assert f"{changed:,} of {sum(t.numel() for t in scales):,} elements" in narrowed.sentence


def test_skip_decisions_know_the_list_and_the_entry(loads):
    with loads.session("decisions") as session:
        views = {view.module: view for view in decisions(session)}
        gate, projection = views["model.layers.0.mlp.gate"], views["model.layers.0.self_attn.q_proj"]
        assert (gate.is_skipped, gate.matched) == (True, "model.layers.0.mlp.gate")
        assert (projection.is_skipped, projection.ignored) == (False, ("lm_head", "model.layers.0.mlp.gate"))


def test_missing_and_unexpected_tensors_are_told_as_the_engine_reports_them(loads):
    with loads.session("missing") as session:
        (loaded,) = of(session, "model.loaded")
        assert (loaded.has_report, loaded.never_filled, loaded.never_used) == (True, (UP,), ())
        (view,) = (view for view in parameters(session) if view.name == UP)
        assert (view.coverage.never_written, view.loader_calls) == (view.elements, ())
    with loads.session("unexpected") as session:
        (loaded,) = of(session, "model.loaded")
        assert (loaded.never_filled, loaded.never_used) == ((), ("model.layers.0.mlp.odd.weight",))


def test_a_conversion_that_fails_is_recorded_where_it_failed(loads):
    assert "conversion of the weights" in loads.told["expert"]["error"] == loads.bare["expert"]["error"]
    with loads.session("expert") as session:
        stack, refused = of(session, "stage.failed")
        assert "stack expects each tensor to be equal size" in stack.message
        assert stack.parameter == refused.parameter == f"{EXPERTS}.down_proj"
        assert f"{EXPERTS}.3.down_proj.weight" in stack.checkpoint_name.split(", ")
        (call,) = (call for call in of(session, "loader.called") if call.outcome == "raised")
        assert call.loader.endswith("MergeModulelist.convert")


def test_the_native_stack_is_compared_with_it_as_the_reference(tmp_path, loads):
    model = str(loads.folders["Qwen3MoeForCausalLM"])
    done = subprocess.run(
        [sys.executable, "-c", hosts.RUN, "compare", model, model, "--reference-engine", "transformers",
         "--dtype", "float32", "--candidate-tp", "2", "--json", "-o", str(tmp_path / "comparison")],
        capture_output=True, text=True, check=False, timeout=hosts.PATIENCE_S, env=hosts.environment(None),
    )  # fmt: skip
    told = json.loads(done.stdout)
    assert (done.returncode, told["findings"]) == (0, []), done.stderr
    assert len(told["outputs"]) > 40
    assert all(one["is_exact"] or one["sqnr_db"] > 90 for one in told["outputs"])
    assert {one["name"] for one in told["unpaired"] if one["side"] == "both"} == {"model.rotary_emb"}


def test_an_engine_that_is_built_on_it_is_asked_for_the_rank_first(tmp_path, monkeypatch):
    from backends.native.parallel import groups
    from inspectors.probe.agent import Probe
    from inspectors.probe.settings import Settings

    monkeypatch.setattr(groups, "tp_rank", lambda: 3)
    alone = Probe(Settings(tmp_path, engines=("backends.engines.transformers",)))
    both = Probe(Settings(tmp_path, engines=("backends.engines.transformers", "backends.engines.native")))
    assert (alone.rank(), both.rank()) == (0, 3)
