"""Where a load failed, as the report and the first screen of its bundle say it: call, tensors, shard, rank, places."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from tui_driver import opened_at

from inspectors.probe.events import LoaderCalled, StageFailed
from inspectors.probe.recorder import Recorder
from sessions.bundle.unpacking import unpack
from sessions.manifest import Manifest
from sessions.session import Session
from workbench import arming
from workbench.failing import failing_call, raised_at

needs_arming = pytest.mark.skipif(
    arming.pth_file() is None, reason="this Python has no loadscope.pth; install the wheel to run a command armed"
)
PARAMETER = "model.layers.3.self_attn.qkv_proj.weight"
TENSOR = "model.layers.3.self_attn.k_proj.weight"


@pytest.fixture(scope="module")
def failed(loadscope, model, home):
    """A person's own command that loads, at tp 2, a checkpoint whose k_proj has lost rows; kept as a bundle."""
    cut = Path(shutil.copytree(model, home / "cut-checkpoint"))
    for file in cut.glob("*.safetensors"):
        tensors = load_file(file)
        if TENSOR in tensors:
            tensors[TENSOR] = tensors[TENSOR][:-128].contiguous()
            save_file(tensors, file, {"format": "pt"})
    command = (sys.executable, "-m", "backends.native", cut, "--tp", 2, "--load-only")
    bundle = home / "cut.loadscope.zip"
    words = ("-q", "--on", "failure", "--bundle", bundle, "-o", home / "cut-run")
    ran = loadscope("run", *words, "--", *command)
    assert ran.exit_code == 4, ran.stderr
    return ran, bundle


@needs_arming
def test_the_report_says_what_was_loaded_though_nobody_told_it(failed, loadscope):
    ran, bundle = failed
    assert ran.stdout.splitlines()[0].startswith("loaded    cut-checkpoint · tp 2 · native")
    told = loadscope("diagnose", "--json", bundle).json
    assert (told["tp"], told["engine"]) == (2, "native")


@needs_arming
def test_the_report_names_the_failing_call_and_the_bundle_to_open(failed):
    ran, bundle = failed
    lines = ran.stdout.splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("failing"))
    facts = {line[10:21].strip(): line[21:] for line in lines[at + 1 : at + 7]}
    assert facts["parameter"].startswith(f"{PARAMETER}  float8_e4m3fn[")
    assert facts["tensor"].startswith(f"{TENSOR}  float8_e4m3fn[")
    assert facts["call"] in {"rank 0, shard 'k'", "rank 1, shard 'k'"}
    assert facts["loader"].endswith("weight_loader")
    assert "backends/native/" in facts["defined at"]
    assert "backends/native/" in facts["raised at"]
    assert lines[-1] == f"next      loadscope open {bundle}"


@needs_arming
@pytest.mark.parametrize("size", [(120, 36), (80, 24)])
async def test_the_first_screen_of_the_bundle_names_the_call_at_any_size(failed, tmp_path, size):
    async with opened_at(unpack(failed[1], tmp_path), size) as it:
        await it.shows("shard 'k'")
        shown = it.text
    assert "cut-checkpoint  tp 2" in shown.splitlines()[0]
    for part in ("self_attn.qkv_proj.weight  float8_e4m3fn[", "self_attn.k_proj.weight  float8_e4m3fn[", "raised at"):
        assert part in shown, shown


HANGS = """
import sys, threading
from backends.native.cli import main
from backends.native.layers import linear

load = linear.FusedColumnLinear.weight_loader

def wait_for_ever(self, param, loaded_weight, *args, **kwargs):
    if "layers.1.mlp" in param.full_name:
        threading.Event().wait()
    return load(self, param, loaded_weight, *args, **kwargs)

linear.FusedColumnLinear.weight_loader = wait_for_ever
main(sys.argv[1:])
"""


@needs_arming
def test_a_load_that_hangs_is_told_by_the_call_it_never_came_out_of(loadscope, model, tmp_path):
    (tmp_path / "hangs.py").write_text(HANGS)
    command = (sys.executable, tmp_path / "hangs.py", model, "--load-only")
    bundle = tmp_path / "hangs.zip"
    words = ("-q", "--on", "failure", "--timeout", 12, "--bundle", bundle, "-o", tmp_path / "run")
    assert loadscope("run", *words, "--", *command).exit_code == 4
    said = loadscope("diagnose", bundle).stdout
    assert "F1 ✗ the host did not end within 12 s" in said
    told = said.partition("failing   ")[2]
    assert told.splitlines()[0] == "weight.load never ended: the host did not end within 12 s"
    assert "parameter  model.layers.1.mlp." in told
    assert f"waits at   {tmp_path / 'hangs.py'}:10 wait_for_ever" in told


def test_of_several_processes_the_one_that_failed_first_is_told_and_of_each_its_last_failure(tmp_path):
    (tmp_path / "streams").mkdir()
    Manifest(id="x").write(tmp_path)
    ranks = [Recorder(tmp_path) for _ in range(2)]
    ranks[1].point(StageFailed("KeyError", "tried and caught", failed_stage="weight.load"), 1)
    for rank, tensor in ((0, "a"), (1, "b")):
        call = ranks[rank].begin(LoaderCalled(f"{tensor}.weight", "m.weight", shard_id="'q'"), rank)
        ranks[rank].point(StageFailed("ValueError", f"no\n{tensor}", failed_stage="weight.load"), rank)
        ranks[rank].end(call)
    for recorder in ranks:
        recorder.close()
    session = Session.open(tmp_path)
    found = failing_call(session)
    session.close()
    assert found.failed == "weight.load failed: ValueError: no a"
    assert dict(found.facts)["tensor"].startswith("a.weight")
    assert dict(found.facts)["call"] == "rank 0, shard 'q'"


@pytest.mark.parametrize(
    ("frames", "place"),
    [
        (
            ("/e/site-packages/torch/_tensor.py:9 split", "/e/site-packages/sglang/x.py:3 load"),
            "sglang/x.py:3 load",
        ),
        (("/usr/lib/python3.11/ast.py:3 parse", "/home/me/torchy/own.py:4 f"), "/home/me/torchy/own.py:4 f"),
        (("/e/lib/python3.11/site-packages/vllm/y.py:2 g", "/home/me/own.py:4 f"), "vllm/y.py:2 g"),
        (("/e/site-packages/torch/_tensor.py:9 split",), "torch/_tensor.py:9 split"),
    ],
)
def test_what_failed_was_raised_in_the_innermost_frame_that_is_no_librarys(frames, place):
    assert raised_at(StageFailed("E", "", frames=frames)).endswith(place)
    assert raised_at(StageFailed("E", "")) == ""
