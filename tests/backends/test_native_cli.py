"""`python -m backends.native` as a person or an engine adapter runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from backends.native.cli import main
from backends.native.errors import CheckpointError
from backends.native.generate import generate
from backends.native.loader import load

ROOT = Path(__file__).parents[2]
QWEN3_5_PARTS = {"in_proj_ba": ["in_proj_b", "in_proj_a"], "in_proj_qkvz": ["in_proj_qkv", "in_proj_z"]}


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "backends.native", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_it_prints_token_ids_on_standard_output_and_logs_on_standard_error(tiny_fp8):
    ran = run(tiny_fp8, "--tp", 4, "--prompt-ids", "5,6,7", "--max-new-tokens", 3, "--threads", 1)
    assert ran.returncode == 0, ran.stderr
    assert [int(token) for token in ran.stdout.split(",")] == generate(load(tiny_fp8), [5, 6, 7], 3)
    assert "rank 3: filled" in ran.stderr
    assert "generated 3 tokens" in ran.stderr


def test_a_failed_load_ends_with_the_traceback_of_its_rank_and_exit_code_1(tiny_fp8):
    ran = run(tiny_fp8, "--tp", 4, "--fused-fallback", json.dumps(QWEN3_5_PARTS))
    assert ran.returncode == 1
    assert "in create_weights" in ran.stderr
    assert "Weight output_partition_size = 8 is not divisible by weight quantization block_n = 128." in ran.stderr


def test_load_only_generates_nothing(tiny, capsys):
    assert main([str(tiny), "--load-only"]) == 0
    assert capsys.readouterr().out == ""


def test_an_exception_of_the_load_passes_through(tmp_path):
    (tmp_path / "config.json").write_text('{"architectures": ["Qwen3NextForCausalLM"]}')
    with pytest.raises(CheckpointError, match="holds no safetensors file"):
        main([str(tmp_path)])


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["model", "--tp", "0"],
        ["model", "--prompt-ids", "1,x"],
        ["model", "--prompt-ids", "-1"],
        ["model", "--max-new-tokens", "0"],
        ["model", "--dtype", "int8"],
        ["model", "--kernels", "fast"],
        ["model", "--fused-fallback", "[]"],
        ["model", "--fused-fallback", '{"qkv_proj": "q_proj"}'],
    ],
)
def test_wrong_usage_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: python -m backends.native" in capsys.readouterr().err
