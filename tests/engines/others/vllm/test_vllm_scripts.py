"""A script of a person's own with vLLM under `loadscope run`: its engine and workers are processes that vLLM spawns."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from sessions.bundle.unpacking import unpack
from sessions.parameters import parameters
from sessions.session import Session
from workbench import launching
from workbench.diagnosis.verdict import findings

pytestmark = pytest.mark.engine
PACKAGES = "import sysconfig; print(sysconfig.get_path('purelib'))"
SCRIPT = """
import sys
from vllm import LLM

if __name__ == "__main__":
    LLM(model=sys.argv[1], tensor_parallel_size=int(sys.argv[2]), skip_tokenizer_init=True, enforce_eager=True,
        max_model_len=128, kv_cache_memory_bytes=1 << 26)
"""
VARIABLES = {
    "HF_HUB_OFFLINE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_HOST_IP": "127.0.0.1",
    "GLOO_SOCKET_IFNAME": "lo", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR",
}  # fmt: skip


def packages_of(python: Path) -> Path:
    return Path(
        subprocess.run([str(python), "-c", PACKAGES], capture_output=True, text=True, check=True).stdout.strip()
    )


@pytest.fixture(scope="module")
def vllm_with(vllm_python, loadscope_root, tmp_path_factory) -> Callable[[str, str], Path]:
    """Makes a Python with that vLLM, our two packages for hosts, and one file more in its site-packages."""

    def make(name: str, content: str) -> Path:
        home = tmp_path_factory.mktemp("python")
        subprocess.run([str(vllm_python), "-m", "venv", "--without-pip", str(home / "venv")], check=True)
        python = home / "venv" / "bin" / "python"
        (home / "door").mkdir()
        for package in ("inspectors", "backends"):
            (home / "door" / package).symlink_to(loadscope_root / package)
        lines = (packages_of(vllm_python), "import torchvision_schemas", home / "door")
        (packages_of(python) / "engine.pth").write_text("".join(f"{line}\n" for line in lines))
        file = packages_of(python) / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(content)
        return python

    return make


@pytest.fixture(scope="module")
def armed_python(vllm_with, loadscope_root) -> Path:
    """A Python as `pip install --no-deps loadscope` leaves it in vLLM's environment."""
    return vllm_with("loadscope.pth", (loadscope_root / "inspectors" / "probe" / "loadscope.pth").read_text())


@pytest.fixture(scope="module")
def bundle(armed_python, cut_checkpoint, loadscope_command, tmp_path_factory) -> tuple[int, dict, Path]:
    """The exit code, the verdict and the bundle of a script that fails while rank 1 loads."""
    home = tmp_path_factory.mktemp("script")
    (home / "my_vllm_script.py").write_text(SCRIPT)
    kept = home / "kept.zip"
    words = ["run", "--json", "-q", "--on", "failure", "--bundle", kept, "-o", home / "session", "--"]
    command = [armed_python, home / "my_vllm_script.py", cut_checkpoint, 2]
    done = loadscope_command(*words, *command, **VARIABLES)
    assert done.stdout.startswith("{"), done.stderr
    return done.returncode, json.loads(done.stdout), kept


def test_a_failing_script_leaves_a_bundle_that_names_the_call(bundle, loadscope_command):
    code, verdict, kept = bundle
    assert (code, verdict["bundle"]) == (4, str(kept))
    told = json.loads(loadscope_command("diagnose", "--json", kept).stdout)
    root = told["findings"][0]
    assert (root["class"], root["rank"]) == ("host/failed", 1)
    assert root["parameter"] == "model.layers.1.self_attn.qkv_proj.weight"
    assert root["tensor"] == "model.layers.1.self_attn.k_proj.weight"
    assert "start (128) + length (128) exceeds dimension size (192)" in root["sentence"]


def test_the_bundle_holds_the_call_of_the_spawned_worker_with_shard_shapes_and_place(bundle, tmp_path):
    session = Session.open(unpack(bundle[2], tmp_path))
    try:
        calls = list(session.of_kinds("loader.called"))
        # The script, its engine and two workers; vLLM may look at the model in one more, and remembers what it saw.
        found = [event.body.engine for event in session.of_kinds("engine.found")]
        assert found.count("vllm") in {4, 5}
        assert list(session.of_kinds("tracepoint.missing")) == []  # of transformers either, which vLLM imports
    finally:
        session.close()
    assert {call.rank for call in calls} == {0, 1}
    (failed,) = [call for call in calls if call.body.outcome == "raised"]
    body = failed.body
    assert (failed.rank, body.shard_id, body.tensor_shape, body.parameter_shape) == (1, "'k'", (192, 256), (512, 256))
    assert body.loader.endswith("QKVParallelLinear.weight_loader_v2")
    assert "layers/linear.py:" in body.where


def test_a_server_s_load_is_recorded_and_an_interrupt_leaves_it_readable(
    armed_python, vllm_checkpoint, start_loadscope, server_port, tmp_path
):
    server = (armed_python, "-m", "vllm.entrypoints.openai.api_server", "--model")
    more = ("--skip-tokenizer-init", "--enforce-eager", "--max-model-len", 128, "--kv-cache-memory-bytes", 1 << 26)
    words = (*server, vllm_checkpoint("Qwen3ForCausalLM/bf16"), *more, "--port", server_port)
    process = start_loadscope("run", "-o", tmp_path / "session", "--", *words, **VARIABLES)
    assert any("startup complete" in line for line in process.stderr)
    process.send_signal(signal.SIGINT)
    process.communicate()
    session = Session.open(tmp_path / "session")
    try:
        assert (process.returncode, session.manifest.outcome.state) == (5, "interrupted")
        assert len(list(session.of_kinds("loader.called"))) == 36
        assert [one.class_ for one in findings(session)] == ["session/incomplete"]
        assert {view.is_final for view in parameters(session)} == {True}
    finally:
        session.close()


def test_the_door_for_plugins_arms_the_probe_where_no_pth_file_is_read(vllm_with, vllm_checkpoint, tmp_path):
    entry = "[vllm.general_plugins]\nloadscope = inspectors.probe.bootstrap:arm\n"
    python = vllm_with("loadscope-0.1.0.dist-info/entry_points.txt", entry)
    (tmp_path / "my_vllm_script.py").write_text(SCRIPT)
    command = (str(python), str(tmp_path / "my_vllm_script.py"), str(vllm_checkpoint("Qwen3ForCausalLM/bf16")), "1")
    watch = launching.Watch(verb="run", output=str(tmp_path / "session"))
    host = launching.host_of_command(command, ("backends.engines.vllm",), watch)
    host.start({**VARIABLES, "OMP_NUM_THREADS": "1"})
    outcome = host.wait()
    session = Session.open(tmp_path / "session")
    try:
        assert (outcome.exit_code, len(list(session.of_kinds("loader.called")))) == (0, 36)
        assert list(session.of_kinds("tracepoint.missing")) == []
    finally:
        session.close()
