"""What the triton kernels launch is accepted by the compiler, for a GPU that need not be there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton.backends.nvidia")
SCRIPT = Path(__file__).with_name("compile_for_gpus.py")
ROOT = Path(__file__).parents[2]
KERNELS = ROOT / "backends/native/kernels"


def test_every_operation_with_a_triton_kernel_is_accepted_by_the_compiler(tmp_path):
    operations = {path.stem for path in (KERNELS / "triton").glob("[!_]*.py")}
    operations &= {path.stem for path in (KERNELS / "reference").glob("[!_]*.py")}
    # A process of its own: the other tests here run with the interpreter, which the compiler does not know.
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", str(SCRIPT), "ttir", "90"]
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment)
    lines = [line.split(maxsplit=3) for line in found.stdout.splitlines() if line.startswith("90 ")]
    assert found.returncode == 0, found.stdout + found.stderr
    assert {op for _, op, outcome, launched in lines if outcome == "ok" and launched} >= operations
