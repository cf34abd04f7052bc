"""Real recorded runs of tiny checkpoints: every format is alike, and a planted defect is named."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from backends.native.checkpoint.synthesize import write_checkpoint
from backends.native.loader import LoadOptions, load
from sessions.session import Session
from sessions.tensors import kept_tensors
from workbench.compare.comparing import compare_sessions
from workbench.compare.verdict import judge
from workbench.errors import FINDINGS, UserError

HERE = Path(__file__).parent
TOKENS = (1, 2, 3, 5, 8, 13, 21)


def loaded_file(path: Path):
    spec = importlib.util.spec_from_file_location(f"loadscope_tests_{path.stem}", path)
    module = sys.modules.setdefault(spec.name, importlib.util.module_from_spec(spec))
    spec.loader.exec_module(module)
    return module


farm_file = loaded_file(HERE / "compare_farm.py")
formats = loaded_file(HERE.parent / "backends" / "test_format_checkpoints.py")


@pytest.fixture(scope="module")
def farm():
    one = farm_file.Farm()
    yield one
    one.close()


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Writes a tiny checkpoint of an architecture in a format, once; all share their weights before quantization."""
    folder = tmp_path_factory.mktemp("checkpoints")

    def made(architecture: str, method: str | None = None) -> Path:
        target = folder / f"{architecture}-{method or 'plain'}".replace(" ", "-")
        if not target.exists():
            config = formats.config_of(architecture, method) if method else formats.small_config(architecture)
            write_checkpoint(target, config, seed=3, max_file_bytes=1 << 22)
        return target

    return made


@pytest.fixture(scope="module")
def references(farm, tmp_path_factory):
    """Sessions of references by (model, tp, dtype): a run of the same is copied, not run again."""
    known: dict[tuple[object, ...], Path] = {}

    def run(host, key) -> None:
        if key in known:
            shutil.rmtree(host.folder)
            shutil.copytree(known[key], host.folder)
        else:
            farm.run(host)
            known[key] = Path(shutil.copytree(host.folder, tmp_path_factory.mktemp("reference") / "session"))

    return run


@pytest.fixture
def compared(farm, references, tmp_path):
    """Runs reference and candidate, and returns the comparison; `before` is Python that plants a defect in a host."""

    def run(reference: Path, candidate: Path, *, tp=(1, 1), dtypes=("", ""), before: str = ""):
        folder = tmp_path / f"comparison-{len(list(tmp_path.iterdir()))}"
        hosts = farm_file.made_hosts(reference, candidate, folder, tp=tp, dtypes=dtypes, tokens=TOKENS)
        references(hosts.reference, (reference, tp[0], dtypes[0]))
        farm.run(hosts.candidate, before)
        return compare_sessions(folder, TOKENS, lambda *_: None)

    return run


def troubles(comparison) -> list[tuple[str, str]]:
    return [(one.name, one.fault) for one in judge(comparison).troubles]


FORMATS = ("fp8 block", "ct int8", "ct int4 actorder", "modelopt nvfp4", "awq", "modelslim static")


@pytest.mark.parametrize("method", FORMATS)
def test_a_quantized_checkpoint_is_alike_to_the_one_it_was_made_from(compared, checkpoints, method):
    said = compared(checkpoints("llama"), checkpoints("llama", method))
    assert troubles(said) == []
    assert said.unpaired == ()
    layer = [one.name.removeprefix("model.layers.1.") for one in said.outputs if one.layer == 1]
    assert layer == [
        "input_layernorm", *(f"self_attn.qkv_proj[{name}_proj]" for name in "qkv"), "self_attn.o_proj", "self_attn",
        "post_attention_layernorm", "mlp.gate_up_proj[gate_proj]", "mlp.gate_up_proj[up_proj]", "mlp.down_proj", "mlp",
        "model.layers.1",
    ]  # fmt: skip
    quantized = {one.name for one in said.weights if one.is_quantized}
    assert quantized == {
        f"model.layers.{n}.{name}.weight"
        for n in (0, 1)
        for name in (*(f"self_attn.{x}_proj" for x in "qkvo"), *(f"mlp.{x}_proj" for x in ("gate", "up", "down")))
    }
    assert all(one.measure.noise > 1e-5 for one in said.weights if one.is_quantized)
    assert all(one.measure.is_exact for one in said.weights if not one.is_quantized)


@pytest.mark.parametrize(
    ("architecture", "method", "tp"),
    [("llama", "fp8 block", (1, 4)), ("llama", None, (2, 4)), ("qwen3_next", "fp8 block", (1, 2))],
)  # fmt: skip
def test_one_checkpoint_on_several_ranks_is_alike(compared, checkpoints, architecture, method, tp):
    model = checkpoints(architecture, method)
    said = compared(model, model, tp=tp)
    assert (troubles(said), said.unpaired, said.is_same_checkpoint) == ([], (), True)
    assert {"slices", "copies"} <= {one.how for one in said.outputs}
    # what was put together wrongly would have the noise of something unrelated
    assert max(one.measure.typical_noise for one in said.outputs if one.layer == 0) < 0.05


def test_two_dtypes_of_one_checkpoint_are_alike_and_differ_by_rounding(compared, checkpoints):
    said = compared(checkpoints("llama"), checkpoints("llama"), dtypes=("float32", "bfloat16"))
    assert troubles(said) == []
    residual = [one.measure.sqnr_db for one in said.outputs if one.kind == "layer"]
    assert all(35 < value < 60 for value in residual)


def edited(source: Path, target: Path, change) -> Path:
    shutil.copytree(source, target)
    for path in target.glob("*.safetensors"):
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path, metadata={"format": "pt"})
    return target


def multiplied(name: str):
    def change(tensors):
        tensors[name] = (tensors[name].float() * 8).to(tensors[name].dtype)

    return change


@pytest.mark.parametrize(
    ("method", "suffix"), [("fp8 block", "weight_scale_inv"), ("ct int8", "weight_scale"),
                           ("modelopt nvfp4", "weight_scale_2")],
)  # fmt: skip
def test_a_scale_that_is_eight_times_too_large_is_named(compared, checkpoints, tmp_path, method, suffix):
    module = "model.layers.1.mlp.down_proj"
    bad = edited(checkpoints("llama", method), tmp_path / "bad", multiplied(f"{module}.{suffix}"))
    said = compared(checkpoints("llama"), bad)
    assert troubles(said) == [(module, "checkpoint")]
    own = next(one for one in said.weights if one.name == f"{module}.weight")
    # eight times the weight: seven times the signal as noise
    assert own.measure.noise == pytest.approx(49, rel=0.02)


def test_keys_and_values_in_each_others_place_are_named_by_their_slots(compared, checkpoints, tmp_path):
    def swap(tensors):
        key, value = (f"model.layers.0.self_attn.{name}_proj.weight" for name in "kv")
        for suffix in ("", "_scale_inv"):
            tensors[key + suffix], tensors[value + suffix] = tensors[value + suffix], tensors[key + suffix]

    bad = edited(checkpoints("llama", "fp8 block"), tmp_path / "bad", swap)
    said = compared(checkpoints("llama"), bad, tp=(1, 2))
    assert troubles(said) == [("model.layers.0.self_attn.qkv_proj[k_proj,v_proj]", "checkpoint")]


SLICED_WRONGLY = """
import torch
from backends.native.layers import linear
load_shard = linear.FusedColumnLinear._load_shard
def wrong(self, param, part, position, dim):
    is_hit = param.full_name == "model.layers.1.mlp.gate_up_proj.weight_scale_inv"
    load_shard(self, param, torch.roll(part, 1, dim) if is_hit else part, position, dim)
linear.FusedColumnLinear._load_shard = wrong
"""


def test_scales_that_were_sliced_wrongly_are_the_loads_fault(compared, checkpoints):
    said = compared(checkpoints("llama"), checkpoints("llama", "fp8 block"), tp=(1, 2), before=SLICED_WRONGLY)
    assert troubles(said) == [("model.layers.1.mlp.gate_up_proj[gate_proj,up_proj]", "load")]


WRONG_ATTENTION = """
from backends.native.layers.attention import Attention
made = []
init = Attention.__init__
def wrong(self, *args, **kwargs):
    init(self, *args, **kwargs)
    made.append(self)
    if len(made) == 2:
        real = self.causal_attention
        self.causal_attention = lambda query, key, value: real(query, key, value.flip(-1))
Attention.__init__ = wrong
"""


def test_a_kernel_between_modules_that_is_wrong_is_told_of_the_module_around_it(compared, checkpoints):
    said = compared(checkpoints("llama"), checkpoints("llama", "fp8 block"), before=WRONG_ATTENTION)
    (trouble,) = judge(said).troubles
    assert (trouble.module, trouble.fault) == ("model.layers.1.self_attn", "load")
    assert "in what goes into o_proj" in trouble.worst.why


def test_one_expert_among_several_is_named(compared, checkpoints, tmp_path):
    name = "model.layers.0.mlp.experts.2.up_proj.weight_scale_inv"
    bad = edited(checkpoints("qwen3_moe", "fp8 block"), tmp_path / "bad", multiplied(name))
    said = compared(checkpoints("qwen3_moe"), bad)
    assert troubles(said) == [("model.layers.0.mlp.experts[2.up_proj]", "checkpoint")]


def test_checkpoints_of_different_depth_compare_what_pairs_and_list_what_does_not(compared, checkpoints, tmp_path):
    short = edited(
        checkpoints("llama"), tmp_path / "short",
        lambda tensors: [tensors.pop(name) for name in list(tensors) if ".layers.1." in name],
    )  # fmt: skip
    config = json.loads((short / "config.json").read_text())
    (short / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    index = short / "model.safetensors.index.json"
    weight_map = json.loads(index.read_text())
    kept = {name: file for name, file in weight_map["weight_map"].items() if ".layers.1." not in name}
    index.write_text(json.dumps(weight_map | {"weight_map": kept}))
    said = compared(checkpoints("llama"), short)
    assert {one.layer for one in said.outputs} == {-1, 0}
    left = {(one.name, one.side) for one in said.unpaired}
    assert ("model.layers.1.mlp.down_proj", "reference") in left
    assert ("model.layers.1.mlp.down_proj.weight", "reference") in left


def test_two_models_that_share_nothing_are_nothing_compared(compared, checkpoints, tmp_path):
    config = formats.small_config("llama") | {"hidden_size": 64, "intermediate_size": 64, "head_dim": 16}
    config |= {"vocab_size": 96}
    other = write_checkpoint(tmp_path / "other", config, seed=3, max_file_bytes=1 << 22)
    with pytest.raises(UserError, match="nothing compared") as caught:
        compared(checkpoints("llama"), other)
    assert caught.value.exit_code == FINDINGS


def outputs_by_torch(folder: Path) -> tuple[dict[str, torch.Tensor], int]:
    """What the modules give without a probe, by hooks of torch, and the next token."""
    model = load(folder, LoadOptions()).models[0]
    found: dict[str, torch.Tensor] = {}
    for name, module in model.named_modules():
        module.register_forward_hook(
            lambda _module, _inputs, output, name=name: found.__setitem__(
                name, (output[0] if isinstance(output, tuple) else output).clone()
            )
        )
    logits = model(torch.tensor(TOKENS), torch.arange(len(TOKENS)), model.make_cache())
    return found, int(logits[-1].argmax())


def test_every_output_is_kept_bit_for_bit_and_the_host_computes_the_same(farm, checkpoints, tmp_path):
    model = checkpoints("qwen3_next", "fp8 block")
    hosts = farm_file.made_hosts(model, model, tmp_path / "c", tokens=TOKENS)
    farm.run(hosts.reference)
    expected, token = outputs_by_torch(model)
    session = Session.open(hosts.reference.folder)
    kept = {one.module: one for one in kept_tensors(session) if (one.role, one.index) == ("output", 0)}
    assert kept.keys() - {""} == expected.keys() - {""}
    for name, tensor in expected.items():
        if name:
            assert np.array_equal(kept[name].read(), tensor.float().numpy()), name
    assert (hosts.reference.folder / "host.log").read_text().splitlines()[-1] == str(token)
    assert session.count("inspector.faulted") == 0
    session.close()


def test_a_host_keeps_no_more_than_its_cap_and_says_so(farm, checkpoints, tmp_path):
    model = checkpoints("llama")
    hosts = farm_file.made_hosts(model, model, tmp_path / "c", tokens=TOKENS)
    host = hosts.reference
    host.manifest = dataclasses.replace(host.manifest, extra={"max_kept_bytes": 10_000})
    farm.run(host)
    session = Session.open(host.folder)
    kept = kept_tensors(session)
    (file,) = (host.folder / "tensors").iterdir()
    assert kept
    assert file.stat().st_size < 10_000 + 20_000  # the header names every tensor
    assert sum(one.body.size_bytes for one in session.of_kinds("tensor.kept")) >= 5_000
    (capped,) = session.of_kinds("recording.capped")
    assert (capped.body.limit, capped.body.value) == ("max_kept_bytes", 10_000)
    session.close()


def test_a_file_in_blocks_of_mixed_types_is_alike_and_named_as_the_model_names_its_modules(compared, tmp_path):
    from backends.native.checkpoint.gguf_synthesize import mixed_types, write_gguf

    config = formats.small_config("llama") | {"hidden_size": 256, "intermediate_size": 256, "head_dim": 64}
    del config["rope_scaling"]
    plain = write_checkpoint(tmp_path / "plain", config, seed=3, max_file_bytes=1 << 24)
    said = compared(plain, write_gguf(tmp_path / "model.gguf", config, seed=3, types=mixed_types))
    assert (troubles(said), said.unpaired) == ([], ())
    own = {one.name: one for one in said.weights}
    value = own["model.layers.1.self_attn.v_proj.weight"]
    assert value.modules == ("model.layers.1.self_attn.qkv_proj",)
    assert value.expected_noise == pytest.approx(value.measure.noise, rel=1e-3)
    # more bits for values than for queries
    assert value.measure.sqnr_db > own["model.layers.1.self_attn.q_proj.weight"].measure.sqnr_db + 5
