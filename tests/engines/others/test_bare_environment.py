"""One command around a failing load in an environment that has SGLang and Loadscope without its dependencies."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from tui_driver import opened_at

from sessions.bundle.unpacking import unpack
from sessions.session import Session
from workbench import launching

pytestmark = pytest.mark.engine
ROOT = Path(__file__).resolve().parents[3]
OURS = ("workbench", "inspectors", "backends", "sessions")
PACKAGES = "import sysconfig; print(sysconfig.get_path('purelib'))"
PARAMETER = "model.layers.0.linear_attn.in_proj_qkvz.weight_scale"
TENSOR = "model.language_model.layers.0.linear_attn.in_proj_qkv.weight_scale"


def packages_of(python: Path) -> Path:
    asked = subprocess.run([str(python), "-c", PACKAGES], capture_output=True, text=True, check=True)
    return Path(asked.stdout.strip())


DOOR = "[sglang.srt.plugins]\nloadscope = inspectors.probe.bootstrap:arm\n"
SCRIPT = """
import sys
from backends.engines import _sglang_launch as launch

launch._import_sglang()
from sglang.srt.plugins import load_plugins
load_plugins()  # as SGLang's engine, scheduler and workers do when they begin
launch.load(launch._parsed([sys.argv[1], "--tp", "4", "--rank", "1", "--quantization", "w8a8_int8"]), 1)
"""


def python_with(engine: Path, home: Path, name: str, content: str) -> Path:
    """A Python with that SGLang, our four packages, and one file more in its site-packages."""
    subprocess.run([str(engine), "-m", "venv", "--without-pip", str(home)], check=True)
    python = home / "bin" / "python"
    packages = packages_of(python)
    for package in OURS:
        (packages / package).symlink_to(ROOT / package)
    (packages / "engine.pth").write_text(f"{packages_of(engine)}\n")
    file = packages / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(content)
    return python


@pytest.fixture(scope="module")
def bare_python(engine_python, tmp_path_factory) -> Path:
    """What the wheel brings: packages, and one line in site-packages."""
    line = (ROOT / "inspectors" / "probe" / "loadscope.pth").read_text()
    return python_with(engine_python("sglang-0.5.10"), tmp_path_factory.mktemp("bare"), "loadscope.pth", line)


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


@pytest.mark.parametrize("version", ["0.5.11", "0.5.23"])
def test_the_door_for_plugins_arms_the_probe_where_no_pth_file_is_read(engine_python, checkpoints, tmp_path, version):
    entry = "loadscope-0.1.0.dist-info/entry_points.txt"
    python = python_with(engine_python(f"sglang-{version}"), tmp_path / "venv", entry, DOOR)
    (tmp_path / "load.py").write_text(SCRIPT)
    command = (str(python), str(tmp_path / "load.py"), str(checkpoints("packed_int8")))
    watch = launching.Watch(verb="run", output=str(tmp_path / "session"))
    host = launching.host_of_command(command, ("backends.engines.sglang",), watch)
    host.start({"OMP_NUM_THREADS": "1"})
    outcome = host.wait()
    session = Session.open(tmp_path / "session")
    try:
        names = {call.body.checkpoint_name for call in session.of_kinds("loader.called")}
        listed = {tensor.body.checkpoint_name for tensor in session.of_kinds("tensor.listed")}
        assert (outcome.exit_code, names) == (0, listed)
        assert list(session.of_kinds("tracepoint.missing")) == []
    finally:
        session.close()
