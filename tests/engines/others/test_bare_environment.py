"""One command around a failing load in an environment that has SGLang and Loadscope without its dependencies."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sessions.bundle.unpacking import unpack

pytestmark = pytest.mark.engine
ROOT = Path(__file__).resolve().parents[3]
OURS = ("workbench", "inspectors", "backends", "sessions")
PACKAGES = "import sysconfig; print(sysconfig.get_path('purelib'))"
PARAMETER = "model.layers.0.linear_attn.in_proj_qkvz.weight_scale"
TENSOR = "model.language_model.layers.0.linear_attn.in_proj_qkv.weight_scale"


def _driver():
    path = ROOT / "tests" / "workbench" / "tui_driver.py"
    spec = importlib.util.spec_from_file_location("loadscope_tests_tui_driver", path)
    module = sys.modules.setdefault(spec.name, importlib.util.module_from_spec(spec))
    spec.loader.exec_module(module)
    return module


opened_at = _driver().opened_at


def packages_of(python: Path) -> Path:
    asked = subprocess.run([str(python), "-c", PACKAGES], capture_output=True, text=True, check=True)
    return Path(asked.stdout.strip())


@pytest.fixture(scope="module")
def bare_python(engine_python, tmp_path_factory) -> Path:
    """A Python with that SGLang, our four packages and their one line in site-packages: what the wheel brings."""
    engine = engine_python("sglang-0.5.10")
    home = tmp_path_factory.mktemp("bare")
    subprocess.run([str(engine), "-m", "venv", "--without-pip", str(home)], check=True)
    python = home / "bin" / "python"
    packages = packages_of(python)
    for package in OURS:
        (packages / package).symlink_to(ROOT / package)
    (packages / "engine.pth").write_text(f"{packages_of(engine)}\n")
    (packages / "loadscope.pth").write_text((ROOT / "inspectors" / "probe" / "loadscope.pth").read_text())
    return python


@pytest.fixture(scope="module")
def failed(bare_python, checkpoints, tmp_path_factory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """What the command printed, and its bundle, of FP8 scales of one element that SGLang 0.5.10 splits."""
    home = tmp_path_factory.mktemp("ci")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LOADSCOPE_", "PYTHONPATH"))}
    load = [bare_python, "-m", "backends.engines._sglang_launch", checkpoints("separate_fp8"), "--tp", "4"]
    watch = [bare_python, "-m", "workbench.cli", "run", "-q", "--on", "failure", "--bundle", "failed.zip", "-o", "run"]
    command = [str(word) for word in (*watch, "--", *load, "--rank", "1")]
    options = {"cwd": home, "env": {**kept, "OMP_NUM_THREADS": "1"}, "timeout": 400}
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 4, done.stderr
    return done, home / "failed.zip"


def test_the_report_names_model_engine_and_the_failing_call(failed):
    done, bundle = failed
    said = done.stdout
    assert said.splitlines()[0] == "loaded    separate_fp8 · tp 4 · sglang 0.5.10"
    for line in (
        "weight.load failed: RuntimeError: split_with_sizes expects split_sizes to sum exactly to 1",
        f"parameter  {PARAMETER}  float32[4]",
        f"tensor     {TENSOR}  float32[1]",
        "call       rank 1, shard (0, 1, 2)",
    ):
        assert line in said, said
    assert "raised at  " in said
    assert "sglang/srt/models/qwen3_5.py:" in said.partition("raised at  ")[2].splitlines()[0]
    assert f"next      loadscope open {bundle}" in said


@pytest.mark.parametrize("size", [(120, 36), (80, 24)])
async def test_the_first_screen_of_the_bundle_names_the_failing_call(failed, tmp_path, size):
    async with opened_at(unpack(failed[1], tmp_path), size) as it:
        await it.shows("rank 1, shard (0, 1, 2)")
        shown = it.text
    for part in (
        "in_proj_qkvz.weight_scale  float32[4]",
        "in_proj_qkv.weight_scale  float32[1]",
        "models/qwen3_5.py:",
        "F1  in_proj_qkv.weight_scale: one element",
    ):
        assert part in shown, shown
