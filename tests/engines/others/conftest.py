"""Engines of others in environments of their own, traced as a person traces them: by the command line."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sessions.control import Control
from sessions.session import Session
from sessions.together import Together

ROOT = Path(__file__).resolve().parents[3]
PLANTS = Path(__file__).parent / "plants"
RUN = "from workbench.cli import main; raise SystemExit(main())"
PATIENCE_S = 400


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"loadscope_tests_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


environments = _module(Path(__file__).parents[1] / "environments.py")


@dataclass(frozen=True)
class Traced:
    """A recorded load: what the command printed, the host's log and the session."""

    code: int
    verdict: dict[str, Any]
    log: str
    session: Session

    def of(self, kind: str) -> list[Any]:
        return list(self.session.of_kinds(kind))

    @property
    def told(self) -> dict[str, Any]:
        return told_in(self.log)


def told_in(log: str) -> dict[str, Any]:
    lines = [line for line in log.splitlines() if line.startswith("TOLD ")]
    assert lines, log
    return json.loads(lines[-1].removeprefix("TOLD "))


@pytest.fixture(scope="session")
def engine_python() -> Callable[[str], Path]:
    """The Python of an environment; skips the test where it was not built."""

    def python(name: str) -> Path:
        if not environments.is_built(name):
            pytest.skip(environments.why_missing(name))
        return environments.python_of(name)

    return python


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory) -> Callable[[str], Path]:
    tiny, made = _module(Path(__file__).parent / "tiny.py"), {}

    def checkpoint(name: str) -> Path:
        if name not in made:
            folder = tmp_path_factory.mktemp("checkpoint") / name
            if "/" in name:
                made[name] = _native(folder, *name.split("/"))
            else:
                made[name] = _fp8_block(folder) if name == "fp8_block" else getattr(tiny, name)(folder)
        return made[name]

    return checkpoint


def _fp8_block(folder: Path) -> Path:
    """Qwen3-Next in FP8 blocks whose ignore list names the fused projections as they are on disk."""
    from backends.native.checkpoint.synthesize import write_checkpoint
    from backends.native.registry import architecture_module

    config = architecture_module("Qwen3NextForCausalLM").tiny_config()
    parts = ("linear_attn.conv1d", "linear_attn.in_proj_ba", "linear_attn.in_proj_qkvz", "mlp.gate",
             "mlp.shared_expert_gate")  # fmt: skip
    names = [f"model.layers.{layer}.{part}" for layer in range(int(config["num_hidden_layers"])) for part in parts]
    config["quantization_config"] = {
        "quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic",
        "modules_to_not_convert": ["lm_head", *(n for n in names if "layers.3.linear_attn" not in n)],
    }  # fmt: skip
    write_checkpoint(folder, config, seed=3, max_file_bytes=4_000_000)
    return folder


def _native(folder: Path, architecture: str, form: str) -> Path:
    """The native stack's tiny checkpoint of an architecture, in bfloat16 or FP8 blocks; skips where it has none."""
    from backends.native.checkpoint.synthesize import write_checkpoint
    from backends.native.errors import NativeError
    from backends.native.registry import architecture_module

    try:
        config = architecture_module(architecture).tiny_config()
    except NativeError as error:
        pytest.skip(f"no checkpoint of {architecture} can be written: {error.what}")
    if "mlp_only_layers" in config:
        config["mlp_only_layers"] = []  # SGLang builds experts in every layer
    if "vision_config" in config:
        config["vision_config"] = {**config["vision_config"], "num_heads": 4}
    if form == "fp8":
        gates = [f"model.layers.{layer}.mlp.gate" for layer in range(int(config["num_hidden_layers"]))]
        config["quantization_config"] = {
            "quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic",
            "modules_to_not_convert": ["lm_head", *gates],
        }  # fmt: skip
    write_checkpoint(folder, config, seed=5, max_file_bytes=4_000_000)
    return folder


def _environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LOADSCOPE_SESSION")}
    return {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


@pytest.fixture(scope="session")
def trace(tmp_path_factory, engine_python, checkpoints) -> Callable[..., Traced]:
    """`loadscope trace` of a tiny checkpoint with SGLang of a version; the same is run only once."""
    done_before: dict[str, Traced] = {}

    def run(
        version: str,
        checkpoint: str,
        *,
        tp: int = 4,
        rank: str = "1",
        before: str = "",
        keep: str = "",
        words: tuple[str, ...] = (),
    ) -> Traced:
        asked = json.dumps([version, checkpoint, tp, rank, before, keep, words])
        if asked not in done_before:
            done_before[asked] = _traced(
                [sys.executable, "-c", RUN, "trace", str(checkpoints(checkpoint)), "--engine", "sglang",
                 "--python", str(engine_python(f"sglang-{version}")), "--tp", str(tp), "--rank", rank, "--json"],
                tmp_path_factory.mktemp("traced") / "session",
                before, words, _environment(**({"LOADSCOPE_TEST_KEEP": keep} if keep else {})),
            )  # fmt: skip
        return done_before[asked]

    yield run
    for traced in done_before.values():
        traced.session.close()


def _traced(
    command: list[str], folder: Path, before: str, more: tuple[str, ...], environment: dict[str, str]
) -> Traced:
    words = [*more, "--after", str(PLANTS / "tell_parameters.py")] + (
        ["--before", str(PLANTS / before)] if before else []
    )
    done = subprocess.run(
        [*command, "-o", str(folder), "--", *words],
        capture_output=True, text=True, check=False, timeout=PATIENCE_S, env=environment,
    )  # fmt: skip
    assert done.stdout.startswith("{"), done.stderr
    log = (folder / "host.log").read_text(errors="replace")
    return Traced(done.returncode, json.loads(done.stdout), log, Session.open(folder))


@pytest.fixture(scope="session")
def untraced(engine_python, checkpoints) -> Callable[..., dict[str, Any]]:
    """The same load without the probe, its loader calls counted by a profiler."""
    done_before: dict[tuple[str, str], dict[str, Any]] = {}

    def run(version: str, checkpoint: str) -> dict[str, Any]:
        if (version, checkpoint) not in done_before:
            python = str(engine_python(f"sglang-{version}"))
            plants = ["--before", str(PLANTS / "count_calls.py"), "--after", str(PLANTS / "tell_parameters.py")]
            done = subprocess.run(
                [python, "-m", "backends.engines._sglang_launch", str(checkpoints(checkpoint)),
                 "--tp", "4", "--rank", "1", *plants],
                capture_output=True, text=True, check=False, timeout=PATIENCE_S, env=_environment(),
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            done_before[version, checkpoint] = told_in(done.stdout)
        return done_before[version, checkpoint]

    return run


class Held:
    """A load that stops where it was told to, with the client that steps it."""

    def __init__(self, command: list[str], folder: Path, environment: dict[str, str]) -> None:
        self._folder, self.code = folder, -1
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
        self.control = self._connected()

    def _connected(self) -> Control:
        give_up_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < give_up_s and self._process.poll() is None:
            control = Control.connect(self._folder)
            if control is not None:
                return control
            time.sleep(0.1)
        raise AssertionError("the host never listened")

    def wait_until_paused(self) -> dict[str, Any]:
        give_up_s = time.monotonic() + PATIENCE_S
        state = self.control.state()
        while state["state"] == "running" and time.monotonic() < give_up_s:
            state = self.control.wait(5)
        assert state["state"] == "paused", state
        return state

    def log(self) -> str:
        return (self._folder / "host.log").read_text(errors="replace")

    def __enter__(self) -> Held:  # noqa: PYI034 - `Self` is of Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        self.control.close()
        self.code = self._process.wait(timeout=PATIENCE_S)


class SteppedRanks:
    """A load of several ranks that wait at their start, and the client that steps them together."""

    def __init__(self, command: list[str], folder: Path, ranks: int, environment: dict[str, str]) -> None:
        self.folder, self.code, self._ranks = folder, -1, ranks
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
        self._give_up_s = time.monotonic() + PATIENCE_S
        while (together := Together.connect(folder)) is None:
            self._still_waiting("no host listened")
            time.sleep(0.1)
        self.together = together

    def settle(self) -> list[Any]:
        """Wait until every rank is held; the call of each."""
        while True:
            state, places = self.together.wait(1), self.together.ranks()
            if state["state"] == "paused" and len(places) == self._ranks and {p.state for p in places} == {"paused"}:
                return [place.call for place in places]
            self._still_waiting(places)

    def step(self, until: str) -> list[Any]:
        self.together.run(until)
        return self.settle()

    def log(self) -> str:
        return (self.folder / "host.log").read_text(errors="replace")

    def _still_waiting(self, what: object) -> None:
        assert self._process.poll() is None, (what, self.log())
        assert time.monotonic() < self._give_up_s, (what, self.log())

    def __enter__(self) -> SteppedRanks:  # noqa: PYI034 - `Self` is of Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        self.together.close()
        self.code = self._process.wait(timeout=PATIENCE_S)


@pytest.fixture
def step_ranks(tmp_path) -> Callable[..., SteppedRanks]:
    """Start `loadscope trace` of two ranks that wait at their start."""

    def start(checkpoint: Path, engine: str, python: Path, *words: str) -> SteppedRanks:
        command = [sys.executable, "-c", RUN, "trace", str(checkpoint), "--engine", engine, "--python", str(python),
                   "--tp", "2", "--paused", "--no-tui", "-o", str(tmp_path / "stepped"), *words]  # fmt: skip
        return SteppedRanks(command, tmp_path / "stepped", 2, _environment())

    return start


@pytest.fixture
def start_trace(tmp_path, engine_python, checkpoints) -> Callable[..., Held]:
    """Start `loadscope trace` of rank 1 of 4, with more words of its command line."""

    def start(version: str, checkpoint: str, *words: str) -> Held:
        command = [sys.executable, "-c", RUN, "trace", str(checkpoints(checkpoint)), "--engine", "sglang",
                   "--python", str(engine_python(f"sglang-{version}")), "--tp", "4", "--rank", "1"]  # fmt: skip
        return Held([*command, *words, "--no-tui", "-o", str(tmp_path / "held")], tmp_path / "held", _environment())

    return start
