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
    """A recorded load: what the command printed, the host's log, the session, and where the loaded values are."""

    code: int
    verdict: dict[str, Any]
    log: str
    session: Session
    kept: Path

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
    """The checkpoint of a name that `written.py` knows."""
    writer, made = _module(Path(__file__).parent / "written.py"), {}

    def checkpoint(name: str) -> Path:
        if name not in made:
            made[name] = writer.written(name, tmp_path_factory.mktemp("checkpoint") / name.replace("/", "-"))
        return made[name]

    return checkpoint


def _environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LOADSCOPE_SESSION")}
    return {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


GGUF = ("--load-format", "gguf", "--quantization", "gguf")
WORDS = {
    "w8a8": ("--quantization", "w8a8_int8"),
    "gguf": GGUF,
    "q8_gguf": GGUF,
    "up_first_gguf": GGUF,
    "nvfp4": ("--before", str(PLANTS / "blackwell.py")),
}
"""What the launcher is told besides, by the form of a checkpoint."""


def plants(checkpoint: str, before: tuple[str, ...] = ()) -> list[str]:
    """The launcher's words for a checkpoint: what counts and tells, and what its form needs."""
    files = [word for name in before for word in ("--before", str(PLANTS / name))]
    tell = ["--before", str(PLANTS / "sglang_load.py"), "--after", str(PLANTS / "sglang_tell.py")]
    return [*tell, *WORDS.get(checkpoint.rpartition("/")[2], ()), *files]


@pytest.fixture(scope="session")
def words_of() -> Callable[..., list[str]]:
    """`plants`, for tests."""
    return plants


@pytest.fixture(scope="session")
def trace(tmp_path_factory, engine_python, checkpoints) -> Callable[..., Traced]:
    """`loadscope trace` of a tiny checkpoint with SGLang of a version; the same is run only once."""
    done_before: dict[str, Traced] = {}

    def run(version: str, checkpoint: str, *, tp: int = 4, rank: str = "1", before: tuple[str, ...] = ()) -> Traced:
        asked = json.dumps([version, checkpoint, tp, rank, before])
        if asked not in done_before:
            home = tmp_path_factory.mktemp("traced")
            command = [sys.executable, "-c", RUN, "trace", str(checkpoints(checkpoint)), "--engine", "sglang",
                       "--python", str(engine_python(f"sglang-{version}")), "--tp", str(tp), "--rank", rank,
                       "--json", "-o", str(home / "session"), "--", *plants(checkpoint, before)]  # fmt: skip
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=PATIENCE_S,
                env=_environment(LOADSCOPE_TEST_KEEP=str(home / "values.pt")),
            )  # fmt: skip
            assert done.stdout.startswith("{"), done.stderr
            log = (home / "session" / "host.log").read_text(errors="replace")
            session = Session.open(home / "session")
            done_before[asked] = Traced(done.returncode, json.loads(done.stdout), log, session, home / "values.pt")
        return done_before[asked]

    yield run
    for traced in done_before.values():
        traced.session.close()


@pytest.fixture(scope="session")
def launch(engine_python) -> Callable[..., subprocess.CompletedProcess[str]]:
    """SGLang's launcher without the probe; keywords are more environment variables."""

    def run(version: str, model: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [str(engine_python(f"sglang-{version}")), "-m", "backends.engines._sglang_launch", str(model)]
        return subprocess.run(
            [*command, *words], capture_output=True, text=True, check=False, timeout=PATIENCE_S, cwd=ROOT,
            env=_environment(**more),
        )  # fmt: skip

    return run


@pytest.fixture(scope="session")
def untraced(launch, checkpoints) -> Callable[..., dict[str, Any]]:
    """The same load without the probe, its loader calls and filled elements counted by other means."""
    done_before: dict[str, dict[str, Any]] = {}

    def run(
        version: str, checkpoint: str, *, tp: int = 4, rank: str = "1", before: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        asked = json.dumps([version, checkpoint, tp, rank, before])
        if asked not in done_before:
            words = ("--tp", str(tp), "--rank", rank, *plants(checkpoint, before))
            done = launch(version, checkpoints(checkpoint), *words, LOADSCOPE_TEST_COUNT="1")
            assert done.returncode == 0, done.stderr
            done_before[asked] = told_in(done.stdout)
        return done_before[asked]

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
