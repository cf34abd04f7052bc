"""transformers, unmodified: what is recorded of its loads, that it changes nothing, and what its own report becomes."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sessions.checkpoint import consumption
from sessions.decisions import decisions
from sessions.parameters import parameters
from sessions.session import Session

transformers = pytest.importorskip("transformers", minversion="5.0")
pytest.importorskip("compressed_tensors")

ROOT = Path(__file__).resolve().parents[2]
RUN = "from workbench.cli import main; raise SystemExit(main())"
PATIENCE_S = 300
INSPECTORS = [f"inspectors.{name}" for name in ("checkpoint", "decisions", "weights", "kernels")]
UP, EXPERTS = "model.layers.1.mlp.up_proj.weight", "model.layers.0.mlp.experts"

FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}
W8A8 = {
    "quant_method": "compressed-tensors", "format": "int-quantized", "quantization_status": "compressed",
    "ignore": ["lm_head"],
    "config_groups": {"group_0": {
        "targets": ["Linear"],
        "weights": {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel", "dynamic": False},
        "input_activations": {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True},
    }},
}  # fmt: skip
SOUND = ("LlamaForCausalLM", "Qwen3ForCausalLM", "Qwen3MoeForCausalLM", "Qwen3NextForCausalLM",
         "Qwen3_5ForConditionalGeneration", "Qwen3MoeForCausalLM/fp8", "LlamaForCausalLM/w8a8")  # fmt: skip
FLAWED = ("missing", "unexpected", "shape", "expert")

HOST = """
import contextlib, hashlib, json, sys, threading, collections
from pathlib import Path
from inspectors.probe.bootstrap import arm; arm()
from backends.engines import _transformers_launch as launch
import torch

counted, threads = collections.Counter(), collections.Counter()
NAMED = {"set_param_for_module": ("param_value",), "convert": ("self", "input_dict"), "_materialize_copy": ("tensor",)}

def see(frame, event, _arg):
    code = frame.f_code
    if event == "call" and code.co_name in NAMED and set(NAMED[code.co_name]) <= set(code.co_varnames):
        counted[code.co_name] += 1
        threads[code.co_name, threading.current_thread() is threading.main_thread()] += 1

def digest(tensor):
    return hashlib.sha256(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()

def one(folder, keep):
    asked = launch._parsed([folder, "--prompt-ids", "1,2,3", "--max-new-tokens", "2"])
    try:
        model = launch.load(asked)
    except RuntimeError as error:
        return {"error": str(error)}
    held = {name: p.detach().contiguous().clone() for name, p in [*model.named_parameters(), *model.named_buffers()]}
    if keep: torch.save(held, keep)
    return {"sha256": {n: digest(p) for n, p in held.items()},
            "tokens": launch.generate(model, asked.prompt_ids, asked.max_new_tokens)}

told = {}
for name, given in json.loads(sys.argv[1]).items():
    counted.clear(), threads.clear()
    if given["session"]:
        from inspectors.probe.agent import running_probe
        if running_probe(): running_probe().move_to(Path(given["session"]))
        said = one(given["model"], given["session"] + "/parameters.pt")
    else:
        threading.setprofile(see); sys.setprofile(see)
        said = one(given["model"], None)
        sys.setprofile(None); threading.setprofile(None)
        said["counted"] = dict(counted)
        said["reads_elsewhere"] = threads["_materialize_copy", False]
    told[name] = said
DECIDE
print("TOLD " + json.dumps(told))
"""
DECIDE = """
if len(sys.argv) > 2:
    from transformers import AutoConfig, AutoModelForCausalLM, FineGrainedFP8Config
    from transformers.integrations.finegrained_fp8 import replace_with_fp8_linear
    running_probe().move_to(Path(sys.argv[2]))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(sys.argv[3]))
    replace_with_fp8_linear(model, ["lm_head", "model.layers.0.mlp.gate"], FineGrainedFP8Config())
"""


Change = Callable[[dict[str, torch.Tensor]], Any]


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


def written(folder: Path, name: str) -> Path:
    from backends.native.checkpoint.synthesize import write_checkpoint
    from backends.native.registry import architecture_module

    architecture, _, form = name.partition("/")
    config = architecture_module(architecture).tiny_config()
    if form == "fp8":
        gates = [f"model.layers.{layer}.mlp.gate" for layer in range(int(config["num_hidden_layers"]))]
        config["quantization_config"] = {**FP8, "modules_to_not_convert": ["lm_head", *gates]}
    elif form == "w8a8":
        config["quantization_config"] = W8A8
    write_checkpoint(folder, config, seed=5, max_file_bytes=4_000_000)
    return folder


def flawed(folder: Path, sound: Path, change: Change) -> Path:
    tensors = {name: t for file in sound.glob("*.safetensors") for name, t in load_file(file).items()}
    change(tensors)
    folder.mkdir()
    (folder / "config.json").write_bytes((sound / "config.json").read_bytes())
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def environment(session: Path | None) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LOADSCOPE_")}
    armed = {"LOADSCOPE_SESSION": str(session)} if session else {}
    return {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **armed}


def run_host(given: dict[str, Any], session: Path | None, *words: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", HOST.replace("DECIDE", DECIDE), json.dumps(given), *words],
        capture_output=True, text=True, check=False, timeout=PATIENCE_S, env=environment(session),
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line.startswith("TOLD ")]
    assert lines, done.stderr
    return json.loads(lines[-1].removeprefix("TOLD "))


@pytest.fixture(scope="module")
def loads(tmp_path_factory) -> Loads:
    root, sessions = tmp_path_factory.mktemp("checkpoints"), tmp_path_factory.mktemp("sessions")
    folders = {name: written(root / name.replace("/", "-"), name) for name in SOUND}
    llama, moe = folders["LlamaForCausalLM"], folders["Qwen3MoeForCausalLM"]
    odd = {"model.layers.0.mlp.odd.weight": torch.zeros(3)}
    changes = (
        (llama, lambda tensors: tensors.pop(UP)),
        (llama, lambda tensors: tensors.update(odd)),
        (llama, lambda tensors: tensors.update({UP: torch.zeros(3, 256, dtype=torch.bfloat16)})),
        (moe, lambda tensors: tensors.update({f"{EXPERTS}.3.down_proj.weight": torch.zeros(2, 2)})),
    )
    for name, (sound, change) in zip(FLAWED, changes, strict=True):
        folders[name] = flawed(root / name, sound, change)
    manifest = {"level": "ledger", "engines": ["backends.engines.transformers"], "inspectors": INSPECTORS}
    given: dict[str, Any] = {}
    for name in (*folders, "decisions"):
        session = sessions / name.replace("/", "-")
        session.mkdir()
        (session / "session.json").write_text(json.dumps(manifest))
        if name in folders:
            given[name] = {"model": str(folders[name]), "session": str(session)}
    told = run_host(given, sessions / "LlamaForCausalLM", str(sessions / "decisions"), str(moe))
    bare = run_host({name: {**one, "session": ""} for name, one in given.items()}, None)
    return Loads(told, bare, folders, sessions)


def of(session: Session, *kinds: str) -> list[Any]:
    return [event.body for event in session.of_kinds(*kinds)]


def test_every_tracepoint_is_found_in_the_sources_of_the_installed_version():
    done = subprocess.run(
        [sys.executable, "-c", RUN, "doctor", "--engine", "transformers", "--json"],
        capture_output=True, text=True, check=False, env=environment(None),
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
        (selected,) = of(session, "method.selected")
        assert (selected.method, selected.config_class) == ("FineGrainedFP8HfQuantizer", "FineGrainedFP8Config")


def test_a_scale_that_is_read_in_another_dtype_than_the_file_has_is_seen(loads):
    with loads.session("LlamaForCausalLM/w8a8") as session:
        name = "model.layers.0.self_attn.q_proj.weight_scale"
        assert [one.dtype for one in of(session, "tensor.listed") if one.checkpoint_name == name] == ["F32"]
        assert [one.dtype for one in of(session, "tensor.read") if one.checkpoint_name == name] == ["bfloat16"]


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


def test_a_shape_that_does_not_fit_gives_the_failing_call(tmp_path, loads):
    output = tmp_path / "session"
    done = subprocess.run(
        [sys.executable, "-c", RUN, "trace", str(loads.folders["shape"]), "--engine", "transformers", "--json",
         "-o", str(output)],
        capture_output=True, text=True, check=False, timeout=PATIENCE_S, env=environment(None),
    )  # fmt: skip
    first = json.loads(done.stdout)["findings"][0]
    assert (done.returncode, first["class"], first["parameter"]) == (4, "host/failed", UP), done.stderr
    session = Session.open(output)
    (call,) = (e for e in session.of_kinds("loader.called") if e.body.parameter == UP)
    assert (call.body.tensor_shape, call.body.parameter_shape) == ((3, 256), (512, 256))
    assert call.ref in first["remedy"]
    session.close()


def test_the_native_stack_is_compared_with_it_as_the_reference(tmp_path, loads):
    model = str(loads.folders["Qwen3MoeForCausalLM"])
    done = subprocess.run(
        [sys.executable, "-c", RUN, "compare", model, model, "--reference-engine", "transformers", "--dtype", "float32",
         "--candidate-tp", "2", "--json", "-o", str(tmp_path / "comparison")],
        capture_output=True, text=True, check=False, timeout=PATIENCE_S, env=environment(None),
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
