"""Ranks that are processes: what they compute equals, bit for bit, what ranks in lockstep compute."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from backends.native.checkpoint.synthesize import write_checkpoint
from backends.native.cli import main
from backends.native.errors import LockstepError
from backends.native.loader import LoadOptions, load
from backends.native.models import qwen3_5_moe
from backends.native.parallel.groups import Membership, joined
from backends.native.parallel.lockstep import run_ranks

ROOT = Path(__file__).parents[2]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
SCRIPT = """
import sys, torch
from backends.native.cli import main
from backends.native.errors import LockstepError
from backends.native.loader import LoadOptions, load
from backends.native.parallel.groups import all_gather, all_reduce, tp_rank
from backends.native.parallel.processes import joined_processes
model, out = sys.argv[1:]
torch.set_num_threads(1)
with joined_processes():
    rank = tp_rank()
    logits = load(model, LoadOptions(tp_size=2)).model(rank)(torch.tensor([5, 6, 7]), torch.arange(3))
    scalar = all_reduce(torch.tensor(rank + 1))
    float8 = all_gather(torch.tensor([rank + 1.0]).to(torch.float8_e4m3fn)).float()
    try:
        all_reduce(torch.ones(2)) if rank else all_gather(torch.ones(2))
        error = ""
    except LockstepError as found:
        error = found.what
    torch.save({"logits": logits, "scalar": scalar, "float8": float8, "error": error}, f"{out}/{rank}.pt")
    code = main([model, "--tp", "2", "--prompt-ids", "5,6,7", "--temperature", "2", "--threads", "1"])
sys.exit(code)
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A checkpoint, what two processes wrote about it, and what they printed."""
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        pytest.skip("this torch has no gloo")
    out = tmp_path_factory.mktemp("processes")
    model = write_checkpoint(out / "model", qwen3_5_moe.tiny_config(), seed=0, max_file_bytes=16 << 20)
    (out / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, *TORCHRUN, str(out / "script.py"), str(model), str(out)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return model, [torch.load(out / f"{rank}.pt") for rank in range(2)], done.stdout


def test_two_processes_compute_the_bits_of_two_ranks_in_lockstep(ran):
    model, of_processes, _ = ran
    loaded = load(model, LoadOptions(tp_size=2))
    expected = run_ranks(2, lambda rank: loaded.model(rank)(torch.tensor([5, 6, 7]), torch.arange(3)))
    for found, logits in zip(of_processes, expected, strict=True):
        assert torch.equal(found["logits"], logits)


def test_tensors_of_no_dimension_and_of_eight_bits_are_exchanged(ran):
    for found in ran[1]:
        assert found["scalar"] == 3
        assert found["float8"].tolist() == [1, 2]


def test_processes_that_meet_at_different_collectives_are_an_error_that_names_both_places(ran):
    for found in ran[1]:
        assert "rank 0 at all_gather of (2,) along -1; rank 1 at all_reduce of (2,)" in found["error"]


def test_only_rank_0_prints_and_it_prints_what_lockstep_prints(ran, capsys):
    model, _, printed = ran
    main([str(model), "--tp", "2", "--prompt-ids", "5,6,7", "--temperature", "2", "--threads", "1"])
    assert printed == capsys.readouterr().out


def test_another_number_of_processes_than_ranks_is_wrong_usage(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit):
        main(["model", "--tp", "4"])
    assert "torchrun started 2 processes, so --tp must be 2, not 4" in capsys.readouterr().err


def test_a_group_inside_a_group_of_another_size_is_an_error():
    with joined(Membership(1, 2, lambda *_: None)):
        assert run_ranks(2, lambda rank: rank) == [1]
        with pytest.raises(LockstepError, match="4 ranks are asked for inside a group of 2"):
            run_ranks(4, lambda rank: rank)
