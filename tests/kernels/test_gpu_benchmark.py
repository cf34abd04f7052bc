"""The benchmark of GPU kernels, as far as it can be run without a GPU."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from backends.native.kernels.choice import kernel

ROOT = Path(__file__).parents[2]
SMALL = {"tokens": (5, 1), "hidden": 256, "intermediate": 128, "experts": 3, "top_k": 2, "projection": 160}


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("gpu_kernels", ROOT / "tests/benchmarks/gpu_kernels.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for their annotations
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def operations(kind):
    return {path.stem for path in (ROOT / "backends/native/kernels" / kind).glob("[!_]*.py")}


def test_every_operation_with_a_triton_kernel_has_a_case_that_the_reference_computes(benchmark):
    seen = set()
    for case in benchmark.cases(benchmark.Sizes(**SMALL, heads=2, head_dim=16), "cpu"):
        results = kernel(case.op, "reference")(*case.arguments)
        first = results[0] if isinstance(results, tuple) else results
        assert first.float().isfinite().all(), case.op
        assert case.moved_bytes(results) > 0
        seen.add(case.op)
    assert seen == operations("triton") & operations("reference")


def test_without_a_gpu_it_says_so_and_what_to_try(benchmark, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert benchmark.main([]) == benchmark.NO_GPU
    assert "torch finds no CUDA device; nothing was timed.\n  try: run it where" in capsys.readouterr().err


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_row_of_the_table_names_the_operation_its_speed_and_its_error(benchmark):
    case = next(benchmark.cases(benchmark.Sizes(**SMALL), "cuda"))
    assert benchmark.row(case).startswith("| `rms_norm` | 5 |")
