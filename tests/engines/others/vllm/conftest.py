"""Loads with vLLM of an environment of its own: recorded by the command line, and the same without the probe."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from sessions.session import Session

ROOT = Path(__file__).resolve().parents[4]
PLANTS = Path(__file__).parents[1] / "plants"
ENVIRONMENT = "vllm-0.32"
RUN = (sys.executable, "-c", "from workbench.cli import main; raise SystemExit(main())")
PATIENCE_S = 600


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"loadscope_tests_vllm_{path.stem}", path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


checkpoints, untraced = (_module(Path(__file__).with_name(f"{name}.py")) for name in ("checkpoints", "untraced"))


@dataclass(frozen=True)
class Traced:
    """A recorded load: exit code, what the command printed, the host's log, the session, and what each rank told."""

    code: int
    verdict: dict[str, Any]
    log: str
    session: Session
    told: dict[int, dict[str, Any]]
    kept: Path

    def of(self, kind: str) -> list[Any]:
        return list(self.session.of_kinds(kind))


def told_in(log: str) -> dict[int, dict[str, Any]]:
    """What each rank's host told, by rank."""
    lines = [json.loads(line.removeprefix("TOLD ")) for line in log.splitlines() if line.startswith("TOLD ")]
    return {one["rank"]: one for one in lines}


def environment(**more: object) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LOADSCOPE_SESSION")}
    return {
        **kept,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        **{name: str(value) for name, value in more.items()},
    }


@pytest.fixture(scope="session")
def loadscope_root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def loadscope_command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `loadscope WORDS` in a process of its own; keywords are more environment variables."""

    def run(*words: object, **more: object) -> subprocess.CompletedProcess[str]:
        command = [*RUN, *(str(word) for word in words)]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=PATIENCE_S, env=environment(**more)
        )

    return run


@pytest.fixture
def start_loadscope() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `loadscope WORDS` in a process of its own and ends it after the test, if it still runs."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: object, **more: object) -> subprocess.Popen[str]:
        command = [*RUN, *(str(word) for word in words)]
        process = subprocess.Popen(
            command, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment(**more)
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.terminate()
        process.wait(PATIENCE_S)


@pytest.fixture(scope="session")
def server_port() -> int:
    """A port that nobody listens at."""
    return untraced.free_port()


@pytest.fixture(scope="session")
def vllm_python(engine_python) -> Path:
    return engine_python(ENVIRONMENT)


@pytest.fixture(scope="session")
def vllm_checkpoint(tmp_path_factory) -> Callable[[str], Path]:
    """`Architecture/form` as the native stack writes it, in sizes for which vLLM has kernels on a CPU."""
    made: dict[str, Path] = {}

    def checkpoint(name: str) -> Path:
        if name not in made:
            folder = tmp_path_factory.mktemp("checkpoint") / name.replace("/", "-")
            made[name] = checkpoints.written(folder, *name.split("/"))
        return made[name]

    return checkpoint


def is_only_loaded(checkpoint: Path) -> bool:
    """Whether vLLM has no kernel for it on a CPU: quantized experts."""
    return checkpoint.name.startswith(("Qwen3Moe", "Qwen3Next")) and not checkpoint.name.endswith("bf16")


def plants(checkpoint: Path) -> tuple[str, ...]:
    """What the launcher runs besides: the counters, and kernels where vLLM has none for a CPU."""
    needs_kernels = any(form in checkpoint.name for form in ("fp8", "nvfp4"))
    kernels = ("--before", str(PLANTS / "vllm_cpu_kernels.py")) if needs_kernels else ()
    if checkpoint.suffix == ".gguf":
        kernels = ("--before", str(PLANTS / "vllm_gguf_kernels.py"))
    if is_only_loaded(checkpoint):
        kernels += ("--before", str(PLANTS / "vllm_loads_experts.py"))
    return ("--before", str(PLANTS / "vllm_load.py"), "--after", str(PLANTS / "vllm_tell.py"), *kernels)


def prompt(checkpoint: Path) -> tuple[str, ...]:
    """The launcher's words for the prompt and the number of tokens to generate."""
    return ("--prompt-ids", "1,2,3,4,5", "--max-new-tokens", "0" if is_only_loaded(checkpoint) else "4")


@pytest.fixture(scope="session")
def trace_vllm(tmp_path_factory, vllm_python, loadscope_command) -> Callable[..., Traced]:
    """`loadscope trace` of a checkpoint; the same is run only once."""
    done_before: dict[str, Traced] = {}

    def run(checkpoint: Path, *, tp: int = 1, words: tuple[str, ...] = ()) -> Traced:
        asked = json.dumps([str(checkpoint), tp, words])
        if asked not in done_before:
            home = tmp_path_factory.mktemp("traced")
            options = ("--engine", "vllm", "--python", vllm_python, "--tp", tp, "--json", "-o", home / "session")
            done = loadscope_command(
                "trace",
                checkpoint,
                *options,
                "--",
                *prompt(checkpoint),
                *plants(checkpoint),
                *words,
                LOADSCOPE_TEST_KEEP=home / "values",
            )
            assert done.stdout.startswith("{"), done.stderr
            log = (home / "session" / "host.log").read_text(errors="replace")
            session = Session.open(home / "session")
            done_before[asked] = Traced(
                done.returncode, json.loads(done.stdout), log, session, told_in(log), home / "values"
            )
        return done_before[asked]

    yield run
    for traced in done_before.values():
        traced.session.close()


@pytest.fixture(scope="session")
def untraced_vllm(vllm_python, tmp_path_factory) -> Callable[..., Any]:
    """The same load without the probe, counted by other means; the same is run only once."""
    started: dict[int, Any] = {}
    done_before: dict[tuple[Path, int], Any] = {}

    def run(checkpoint: Path, tp: int = 1) -> Any:
        if tp not in started:
            started[tp] = untraced.Untraced(vllm_python, tp, tmp_path_factory.mktemp("untraced"), environment())
        if (checkpoint, tp) not in done_before:
            try:
                done_before[checkpoint, tp] = started[tp].load(checkpoint, prompt(checkpoint))
            except BaseException:
                started.pop(tp).close()  # the next load begins with processes of its own
                raise
        return done_before[checkpoint, tp]

    yield run
    for one in started.values():
        one.close()


@pytest.fixture(scope="session")
def ghosts() -> Any:
    return untraced.Ghosts(_module(Path(__file__).parents[2] / "ghost.py"))


@pytest.fixture(scope="session")
def cut_checkpoint(vllm_checkpoint, tmp_path_factory):
    """Qwen3 with one k_proj that has 64 rows less than its config says."""
    folder = tmp_path_factory.mktemp("cut")
    for file in vllm_checkpoint("Qwen3ForCausalLM/bf16").iterdir():
        if file.suffix == ".safetensors":
            tensors = load_file(file)
            wrong = tensors.get("model.layers.1.self_attn.k_proj.weight")
            if wrong is not None:
                tensors["model.layers.1.self_attn.k_proj.weight"] = wrong[:-64].contiguous()
            save_file(tensors, folder / file.name, {"format": "pt"})
        else:
            (folder / file.name).write_bytes(file.read_bytes())
    return folder
