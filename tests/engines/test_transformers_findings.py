"""transformers: clean loads of every kind have no finding, and each seeded defect is named first."""

from __future__ import annotations

import contextlib
import importlib.util
import json
from pathlib import Path

import pytest
import torch

from sessions.decisions import decisions
from sessions.parameters import parameter, parameters
from sessions.session import Session
from workbench.diagnosis.verdict import findings

pytest.importorskip("transformers", minversion="5.0")
pytest.importorskip("compressed_tensors")

LOADS = importlib.util.spec_from_file_location("transformers_loads", Path(__file__).with_name("transformers_loads.py"))
hosts = importlib.util.module_from_spec(LOADS)
LOADS.loader.exec_module(hosts)

LLAMA, MOE, VISION = "LlamaForCausalLM", "Qwen3MoeForCausalLM", "Qwen3_5ForConditionalGeneration"
CLEAN = ("Qwen3_5MoeForConditionalGeneration", f"{LLAMA}/fp16", f"{LLAMA}/tied", f"{LLAMA}/ctfp8", f"{MOE}/int4",
         f"{MOE}/nvfp4", "Qwen3NextForCausalLM/fp8", f"{VISION}/w8a8", "Qwen3ForCausalLM/gguf",
         f"{VISION}/gguf")  # fmt: skip
UP, SCALE = "model.layers.1.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weight_scale"
EXPERTS = "model.layers.0.mlp.experts"
MERGED = f"{EXPERTS}.gate_up_proj"


def without(*names):
    return lambda tensors: [tensors.pop(name) for name in names]


def renamed(tensors):
    tensors[UP.replace("up_proj", "upproj")] = tensors.pop(UP)


def turned(name):
    return lambda tensors: tensors.update({name: tensors[name].T.contiguous()})


def layer(tensors):
    for name in [name for name in tensors if ".layers.1." in name]:
        del tensors[name]


SEEDED = {
    # the sound checkpoint, the defect; class, parameter and tensor of the first finding; what it says
    "missing": (LLAMA, without(UP), "parameter/missing", UP, UP, "random values, standard deviation 0.02"),
    "missing norm": (LLAMA, without("model.norm.weight"), "parameter/missing", "model.norm.weight", "model.norm.weight",
                     "1 everywhere"),
    "renamed": (LLAMA, renamed, "parameter/missing", UP, UP.replace("up_proj", "upproj"), "nobody used it"),
    "other name on disk": (VISION, without(UP.replace("model.", "model.language_model.")), "parameter/missing", UP,
                           UP.replace("model.", "model.language_model."), "random values"),
    "layer": (LLAMA, layer, "parameter/missing", "model.layers.1.self_attn.q_proj.weight",
              "model.layers.1.self_attn.q_proj.weight", "any of the 9 parameters of model.layers.1"),
    "transposed": (LLAMA, turned(UP), "parameter/shape", UP, UP, "transposed"),
    "shape": (LLAMA, lambda t: t.update({UP: t[UP][:3].contiguous()}), "parameter/shape", UP, UP, "[3, 256]"),
    "int8 weight": (f"{LLAMA}/w8a8", without(UP), "parameter/missing", UP, UP, "ended while it initialised"),
    "int8 scale": (f"{LLAMA}/w8a8", without(SCALE), "parameter/missing", SCALE, SCALE, "left it uninitialised"),
    "fp8 scale": (f"{LLAMA}/fp8", without(f"{SCALE}_inv"), "scale/missing", UP, f"{SCALE}_inv", "without it"),
    "fp8 weight": (f"{LLAMA}/fp8", without(UP), "parameter/missing", UP, UP, "random values"),
    "fp8 scale of another name": (f"{LLAMA}/fp8tensor", lambda _: None, "scale/dropped", None,
                                  "model.layers.0.mlp.down_proj.weight_scale", "without its weight_scale"),
    "expert": (MOE, without(f"{EXPERTS}.3.up_proj.weight"), "checkpoint/incomplete", MERGED,
               f"{EXPERTS}.3.up_proj.weight", "not among them"),
    "expert turned": (MOE, turned(f"{EXPERTS}.3.up_proj.weight"), "checkpoint/incomplete", MERGED,
                      f"{EXPERTS}.3.up_proj.weight", "transposed"),
    "expert scale": (f"{MOE}/ctfp8", without(f"{EXPERTS}.3.up_proj.weight_scale"), "checkpoint/incomplete", MERGED,
                     f"{EXPERTS}.3.up_proj.weight_scale", "elements were never filled"),
    "list for other names": ("Qwen3_5MoeForConditionalGeneration/ctfp8", lambda _: None, "precision/contradiction",
                             None, "model.language_model.layers.0.mlp.shared_expert_gate.weight",
                             "names it as the checkpoint does"),
}  # fmt: skip


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    root, sessions = tmp_path_factory.mktemp("checkpoints"), tmp_path_factory.mktemp("sessions")
    sources = dict.fromkeys((*CLEAN, *(source for source, *_ in SEEDED.values())))
    folders = {name: hosts.written(root / name.replace("/", "-"), name) for name in sources}
    models = {name: folders[name] for name in CLEAN}
    for name, (source, change, *_) in SEEDED.items():
        models[name] = hosts.flawed(root / name, folders[source], change)
    given = {}
    for number, (name, model) in enumerate(models.items()):
        session = sessions / str(number)
        session.mkdir()
        (session / "session.json").write_text(json.dumps({**hosts.MANIFEST, "inspectors": hosts.INSPECTORS[:-1]}))
        given[name] = {"model": str(model), "session": str(session), "is_kept": False}
    hosts.run_host(given, sessions / "0")

    @contextlib.contextmanager
    def open_(name):
        session = Session.open(Path(given[name]["session"]))
        yield session
        session.close()

    return open_


@pytest.mark.parametrize("name", CLEAN)
def test_a_clean_load_has_no_finding(opened, name):
    with opened(name) as session:
        assert {one.class_ for one in findings(session)} <= {"precision/narrowed"}
        views = parameters(session)
        assert len(views) > 20
        assert all((view.coverage.never_written, view.coverage.written_twice) == (0, 0) for view in views)


@pytest.mark.parametrize("name", SEEDED)
def test_a_seeded_defect_is_the_first_finding(opened, name):
    *_, class_, named, tensor, said = SEEDED[name]
    with opened(name) as session:
        first, *others = findings(session)
        assert (first.class_, first.severity, first.parameter, first.tensor) == (class_, "error", named, tensor)
        assert said in first.sentence
        assert not any("never filled" in one.title for one in others if one.root)


def test_a_tied_parameter_is_filled_by_what_filled_the_other(opened):
    with opened(f"{LLAMA}/tied") as session:
        (head,), (embedding,) = (parameter(session, name) for name in ("lm_head.weight", "model.embed_tokens.weight"))
        assert (head.tied_to, embedding.tied_to) == ("model.embed_tokens.weight", "")
        assert head.calls == embedding.calls != ()
        assert head.coverage.never_written == 0


def test_a_module_tells_what_it_was_made_and_which_entry_left_it_alone(opened):
    with opened(f"{LLAMA}/ctfp8") as session:
        made = {view.module: view for view in decisions(session)}
        projection, head = made["model.layers.0.self_attn.q_proj"], made["lm_head"]
        assert (projection.layer_class, projection.method) == ("Linear", "Linear float 8 channel")
        assert (projection.is_skipped, projection.built, projection.ignored) == (False, "float8_e4m3fn", ("lm_head",))
        assert (head.is_skipped, head.matched, head.method) == (True, "lm_head", "")
        assert len(made) == 1 + 1 + 3 * 7  # the whole model, lm_head, and the layers' projections


def test_blocks_are_told_by_their_file_names_and_by_how_they_were_unpacked(opened):
    with opened(f"{VISION}/gguf") as session:
        (view,) = parameter(session, "model.layers.0.mlp.up_proj.weight")
        (write,) = view.writes
        assert write.checkpoint_name == "blk.0.ffn_up.weight"
        assert write.source.startswith("computed by aten::")
        made = {one.module: one for one in decisions(session)}[view.module]
        assert (made.method, made.built, made.is_dequantized) == ("Dequantize", "as is", True)
        (rows,) = parameter(session, "model.layers.0.linear_attn.dt_bias")  # another order of heads
        taken = torch.cat([torch.arange(w.length[0]) * (w.source_strides[0] or 1) + w.source_offset
                           for w in sorted(rows.writes, key=lambda w: w.start)])  # fmt: skip
        assert sorted(taken.tolist()) == list(range(rows.elements))
        assert taken.tolist() != sorted(taken.tolist())
    with opened("Qwen3ForCausalLM/gguf") as session:
        (view,) = parameter(session, "model.layers.0.mlp.up_proj.weight")
        (write,) = view.writes
        assert (write.checkpoint_name, write.source) == ("blk.0.ffn_up.weight", "made before the call")
