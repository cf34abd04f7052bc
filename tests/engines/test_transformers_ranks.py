"""transformers in two processes: which bytes of the files each rank took, and that the parts are the right ones."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sessions.parameters import parameters
from sessions.session import Session
from workbench.diagnosis.verdict import findings

pytest.importorskip("transformers", minversion="5.0")

LOADS = importlib.util.spec_from_file_location("transformers_loads", Path(__file__).with_name("transformers_loads.py"))
hosts = importlib.util.module_from_spec(LOADS)
LOADS.loader.exec_module(hosts)

RANKS = 2
COUNT = """
import collections, sys
counted = collections.Counter()
def see(frame, event, _arg):
    if event == "call" and frame.f_code.co_name in ("set_param_for_module", "convert"):
        counted[frame.f_code.co_name] += "input_dict" in frame.f_code.co_varnames or "param_value" in frame.f_locals
sys.counted = counted
sys.setprofile(see)
"""
TELL = """
import json, sys, torch
from pathlib import Path
sys.setprofile(None)
held = {n: getattr(p, "_local_tensor", p).detach().contiguous().clone() for n, p in model.named_parameters()}
torch.save(held, Path(__file__).with_name(f"{rank}.pt"))
Path(__file__).with_name(f"{rank}.json").write_text(json.dumps(sys.counted))
"""
BY_ROWS = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "embed_tokens", "lm_head")
BY_COLUMNS = ("o_proj", "down_proj")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "count.py").write_text(COUNT)
    (folder / "tell.py").write_text(TELL)
    model = hosts.written(folder / "model", "Qwen3MoeForCausalLM")
    done = subprocess.run(
        [sys.executable, "-c", hosts.RUN, "trace", str(model), "--engine", "transformers", "--tp", str(RANKS), "--json",
         "--level", "ledger", "-o", str(folder / "session"), "--", "--dtype", "float32",
         "--before", str(folder / "count.py"), "--after", str(folder / "tell.py")],
        capture_output=True, text=True, check=False, timeout=hosts.PATIENCE_S, env=hosts.environment(None),
    )  # fmt: skip
    told = json.loads(done.stdout)
    assert (done.returncode, told["findings"], told["tp"]) == (0, [], RANKS), done.stderr
    session = Session.open(folder / "session")
    files = {name: t for file in model.glob("*.safetensors") for name, t in load_file(file).items()}
    held = [torch.load(folder / f"{rank}.pt") for rank in range(RANKS)]
    yield session, files, held, [json.loads((folder / f"{rank}.json").read_text()) for rank in range(RANKS)]
    session.close()


def part(files, name, rank):
    """What a rank holds of a parameter, by the published plan: columns of what sums up, rows of the rest."""
    owner = name.removesuffix(".weight")
    if owner.endswith("gate_up_proj"):
        prefix = owner.removesuffix("gate_up_proj")
        experts = range(sum(key.startswith(prefix) and key.endswith("up_proj.weight") for key in files))
        return torch.stack([
            torch.cat([files[f"{prefix}{n}.{half}.weight"].chunk(RANKS, 0)[rank] for half in ("gate_proj", "up_proj")])
            for n in experts
        ])  # fmt: skip
    if owner.endswith("experts.down_proj"):
        prefix = owner.removesuffix("down_proj")
        experts = range(sum(key.startswith(prefix) and key.endswith("up_proj.weight") for key in files))
        return torch.stack([files[f"{prefix}{n}.down_proj.weight"].chunk(RANKS, 1)[rank] for n in experts])
    if owner.endswith(BY_ROWS):
        return files[name].chunk(RANKS, 0)[rank]
    return files[name].chunk(RANKS, 1)[rank] if owner.endswith(BY_COLUMNS) else files[name]


def test_each_rank_holds_its_part_of_the_files(ranks):
    _, files, held, _ = ranks
    for rank in range(RANKS):
        assert len(held[rank]) > 30
        for name, real in held[rank].items():
            assert torch.equal(real, part(files, name, rank).float()), (rank, name)


def test_the_calls_of_each_rank_are_those_that_a_profiler_counts(ranks):
    session, *_, counted = ranks
    calls = Counter((e.rank, e.body.loader.rpartition(".")[2]) for e in session.of_kinds("loader.called"))
    assert calls == {(rank, name): n for rank in range(RANKS) for name, n in counted[rank].items()}
    assert {event.rank for event in session.of_kinds("stage.failed", "inspector.faulted")} == set()


def test_the_ledger_tells_of_each_rank_which_elements_of_the_files_it_took(ranks):
    session, files, held, _ = ranks
    views = parameters(session)
    assert {(view.rank, view.name) for view in views} == {(r, name) for r in range(RANKS) for name in held[r]}
    for view in views:
        real = held[view.rank][view.name]
        assert view.shape == tuple(real.shape)
        made = torch.full_like(real, 77)
        for write in view.writes:
            assert "cast bfloat16 to float32" in write.source
            places = torch.full(write.length, write.source_offset)
            for dim, (count, stride) in enumerate(zip(write.length, write.source_strides, strict=True)):
                places += (torch.arange(count) * stride).view([-1 if dim == d else 1 for d in range(len(write.length))])
            box = tuple(slice(begin, begin + count) for begin, count in zip(write.start, write.length, strict=True))
            made[box] = files[write.checkpoint_name].reshape(-1)[places].float()
        assert torch.equal(made, real), (view.rank, view.name)
    assert findings(session) == ()


def test_what_a_rank_cut_as_it_read_is_told_with_the_parameter(ranks):
    session, *_ = ranks
    cuts = {
        (e.rank, e.body.checkpoint_name, e.body.dim, e.body.start, e.body.length, e.body.size)
        for e in session.of_kinds("shard.split")
        if e.body.parameter == "model.layers.0.self_attn.o_proj.weight"
    }
    name = "model.layers.0.self_attn.o_proj.weight"
    assert cuts == {(0, name, 1, 0, 256, 512), (1, name, 1, 256, 256, 512)}
