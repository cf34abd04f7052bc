"""Attaching to a process that was not started under Loadscope: entered where Python allows it, else told plainly."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from inspectors.probe.events import ModelLoaded, ParameterRegistered, WeightsCreated, WeightsMapped, WeightWritten
from inspectors.probe.recorder import Recorder
from sessions.manifest import Manifest
from sessions.parameters import parameters
from sessions.session import Session
from workbench.diagnosis.verdict import findings

PYTHON = os.environ.get("LOADSCOPE_PYTHON314") or shutil.which("python3.14") or ""
needs_314 = pytest.mark.skipif(
    not PYTHON, reason="needs a Python 3.14: python3.14 on the PATH, or LOADSCOPE_PYTHON314=PATH"
)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can take rights away or become another user")

ROUND = "    model = Model(); model.load_weights(iterate(open_checkpoint('x'))); print(model.values(), flush=True)\n"
IMPORTS = (
    "import select, sys\n"
    "from toyengine.models.toy import Model\n"
    "from toyengine.reading import iterate, open_checkpoint\n"
)
WAITS = "    if not select.select([sys.stdin], [], [], 0.02)[0]: continue\n    if not sys.stdin.readline(): break\n"
AT_WORK = f"{IMPORTS}print('ready', flush=True)\nwhile True:\n{WAITS}{ROUND}"
IMPORTS_LATER = f"import select, sys\nprint('ready', flush=True)\nwhile True:\n{WAITS}" + "".join(
    f"    {line}\n" for line in (IMPORTS + ROUND.strip()).splitlines()
)
LOADS_SLOWLY = f"""{IMPORTS}
def slowly(weights):
    for pair in weights:
        print('ready', flush=True)
        while not select.select([sys.stdin], [], [], 0.02)[0]: pass
        sys.stdin.readline()
        yield pair
model = Model(); model.load_weights(slowly(iterate(open_checkpoint('x')))); print(model.values(), flush=True)
"""
IN_C = f"{IMPORTS}print('ready', flush=True)\nfor line in sys.stdin:\n{ROUND}"
LOADED = "{'a.weight': [1, 2], 'b.weight': [3, 4], 'c.weight': [5]}\n"


def _toy():
    path = Path(__file__).resolve().parents[1] / "inspectors" / "conftest.py"
    spec = importlib.util.spec_from_file_location("loadscope_tests_toy_engine", path)
    module = sys.modules.setdefault(spec.name, importlib.util.module_from_spec(spec))
    spec.loader.exec_module(module)
    return module


class Running:
    """A host of the toy engine that nobody prepared: it loads once for each line."""

    def __init__(self, folder: Path, code: str = AT_WORK, python: str = PYTHON, *words: str, **options) -> None:
        variables = {k: v for k, v in os.environ.items() if not k.startswith(("LOADSCOPE_", "PYTHON"))}
        variables |= {"PYTHONPATH": str(folder), **options.pop("environment", {})}
        (folder / "serve.py").write_text(code, encoding="utf-8")
        self.process = subprocess.Popen(
            [python, *words, str(folder / "serve.py")], env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, **options,
        )  # fmt: skip
        self.pid = self.process.pid
        assert self.process.stdout.readline() == "ready\n", self.process.stderr.read()

    def load(self) -> str:
        self.process.stdin.write("again\n")
        self.process.stdin.flush()
        return self.process.stdout.readline()

    def end(self) -> str:
        """What it wrote to standard error."""
        return self.process.communicate(timeout=60)[1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    toy = _toy()
    for name, text in {"__init__.py": toy.ENGINE, **toy.ENGINE_PARTS}.items():
        path = tmp_path / "toyengine" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (tmp_path / "toyadapter.py").write_text(toy.ADAPTER, encoding="utf-8")
    return tmp_path


@pytest.fixture
def start(folder: Path) -> Iterator:
    running: list[Running] = []

    def one(*given, **options) -> Running:
        running.append(Running(folder, *given, **options))
        return running[-1]

    yield one
    for host in running:
        host.process.kill()
        host.process.communicate()


WORDS = ("--adapter", "toyadapter", "--level", "calls")


def refused(ran, code: int) -> tuple[str, str]:
    assert (ran.exit_code, len(ran.error_lines)) == (code, 2), ran.stderr
    return ran.error_lines[0], ran.error_lines[1]


@needs_314
def test_what_a_running_process_loads_from_then_on_is_recorded_and_nothing_else_changes(start, loadscope, tmp_path):
    host = start()
    assert host.load() == LOADED
    first = loadscope("attach", host.pid, *WORDS, "-o", tmp_path / "session", "--json")
    assert (first.exit_code, first.json["state"], first.json["pid"]) == (0, "running", host.pid), first.stderr
    assert host.load() == host.load() == LOADED
    again = loadscope("attach", host.pid, "--stacks")
    assert str(tmp_path / "session") in again.stdout
    assert "serve.py" in again.stdout
    assert loadscope("attach", tmp_path / "session", "--json").json["pid"] == host.pid
    assert host.end() == ""
    assert host.process.returncode == 0
    session = Session.open(tmp_path / "session")
    loaded = [event.body.parameter for event in session.of_kinds("loader.called")]
    assert loaded == ["a.weight", "b.weight", "c.weight"] * 2
    assert session.count("tensor.read") == session.count("weights.mapped") * 3 == 6  # held by name in the host's script
    assert session.manifest.attached_at
    session.close()
    judged = loadscope("diagnose", tmp_path / "session", "--json").json["findings"]
    assert [one["class"] for one in judged] == ["session/attached-late"]
    assert "attached  while it ran" in loadscope("diagnose", tmp_path / "session").stdout


@needs_314
def test_a_main_thread_that_waits_in_c_is_entered_when_it_comes_back(start, loadscope, variables, tmp_path):
    host = start(IN_C)
    code = (
        "import workbench.attaching.late as late, sys; late.ENTER_SECONDS = 0.3; "
        "from workbench.cli import main; sys.exit(main())"
    )
    words = [sys.executable, "-c", code, "attach", str(host.pid), *WORDS, "-o", str(tmp_path / "session")]
    done = subprocess.run(words, env=variables, capture_output=True, text=True, check=False)
    what, try_ = done.stderr.splitlines()
    assert (done.returncode, "it waits in C code" in what) == (5, True)
    assert try_ == f"try: it is entered as soon as it comes back to Python: loadscope attach {host.pid}"
    assert host.load() == LOADED
    ran = loadscope("attach", host.pid, *WORDS, "--json")
    assert (ran.exit_code, ran.json["session"]) == (0, str(tmp_path / "session")), ran.stderr
    assert host.end() == ""


@needs_314
def test_an_engine_that_is_imported_after_that_is_recorded_from_its_first_call(start, loadscope, tmp_path):
    host = start(IMPORTS_LATER)
    ran = loadscope("attach", host.pid, *WORDS, "-o", tmp_path / "session")
    assert (ran.exit_code, "it has imported no engine yet" in ran.stderr) == (0, True), ran.stderr
    assert "no engine yet, running" in ran.stdout
    assert host.load() == LOADED
    assert loadscope("attach", host.pid, "--json").json["pid"] == host.pid
    assert host.end() == ""
    session = Session.open(tmp_path / "session")
    assert session.count("loader.called") == 3
    session.close()


@needs_314
def test_the_rest_of_a_load_that_is_under_way_is_no_ground_to_miss_anything(start, loadscope, tmp_path):
    host = start(LOADS_SLOWLY)
    assert loadscope("attach", host.pid, *WORDS, "-o", tmp_path / "session").exit_code == 0
    assert [host.load() for _ in range(3)] == ["ready\n", "ready\n", LOADED]
    assert host.end() == ""
    judged = loadscope("diagnose", tmp_path / "session", "--json").json["findings"]
    assert [one["class"] for one in judged] == ["session/attached-late"]


@needs_314
def test_a_forked_child_is_found_in_the_session_of_its_parent(start, loadscope, tmp_path):
    code = AT_WORK.replace(
        "    if not sys.stdin.readline(): break\n",
        "    line = sys.stdin.readline()\n    if line == 'fork\\n':\n        import os\n        child = os.fork()\n"
        "        if child: print(child, flush=True); os.waitpid(child, 0)\n        continue\n    if not line: break\n",
    )
    host = start(code)
    assert loadscope("attach", host.pid, *WORDS, "-o", tmp_path / "session").exit_code == 0
    host.process.stdin.write("fork\n")
    host.process.stdin.flush()
    child = int(host.process.stdout.readline())
    ran = loadscope("attach", child, *WORDS, "-o", tmp_path / "other", "--json")
    assert (ran.exit_code, ran.json["pid"], ran.json["session"]) == (0, child, str(tmp_path / "session")), ran.stderr
    assert not (tmp_path / "other").exists()
    host.end()


@needs_314
def test_a_process_with_packages_of_our_names_is_left_as_it_is(start, loadscope, folder, tmp_path):
    (folder / "inspectors").mkdir()
    (folder / "inspectors" / "__init__.py").write_text("", encoding="utf-8")
    host = start()
    what, _ = refused(loadscope("attach", host.pid, *WORDS, "-o", tmp_path / "session"), 2)
    assert "a package 'inspectors' of its own" in what
    assert not (tmp_path / "session").exists()
    assert host.load() == LOADED
    assert host.end() == ""


@needs_314
@pytest.mark.parametrize("way", ["variable", "option"])
def test_a_process_that_was_told_to_let_nobody_in_is_not_entered(start, loadscope, tmp_path, way):
    is_variable = way == "variable"
    environment = {"PYTHON_DISABLE_REMOTE_DEBUG": "1"} if is_variable else {}
    words = () if is_variable else ("-X", "disable-remote-debug")
    host = start(AT_WORK, PYTHON, *words, environment=environment)
    what, try_ = refused(loadscope("attach", host.pid, *WORDS, "-o", tmp_path / "session"), 2)
    assert "was told to let nobody in" in what
    assert "loadscope run --hold -- " in try_
    assert not (tmp_path / "session").exists()
    assert (host.load(), host.end()) == (LOADED, "")


def without_the_right_to_trace() -> None:
    """Before exec: root without CAP_SYS_PTRACE."""
    ctypes.CDLL(None).prctl(24, 19, 0, 0, 0)


def run_without_the_right(variables, *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "workbench.cli", *map(str, words)], env=variables, capture_output=True, text=True,
        check=False, preexec_fn=without_the_right_to_trace,
    )  # fmt: skip


@needs_314
@needs_root
def test_without_the_right_to_trace_it_is_said_which_right_is_missing(start, variables, tmp_path):
    host = start()
    done = run_without_the_right(variables, "attach", host.pid, *WORDS, "-o", tmp_path / "session")
    what, try_ = done.stderr.splitlines()
    assert (done.returncode, "the right to trace processes" in what) == (2, True), done.stderr
    assert "SYS_PTRACE" in try_
    assert not (tmp_path / "session").exists()
    assert (host.load(), host.end()) == (LOADED, "")


@needs_root
def test_a_process_of_another_user_is_left_to_him(loadscope, variables):
    """Even by root: to find out about its Python, that user's program would have to be run."""
    process = subprocess.Popen(["/bin/sleep", "600"], user=65534)
    name = pwd.getpwuid(65534).pw_name
    try:
        what, try_ = refused(loadscope("attach", process.pid), 2)
        assert (f"belongs to another user, {name}" in what, f"sudo -u {name}" in try_) == (True, True)
        done = run_without_the_right(variables, "attach", process.pid)
        assert (done.returncode, f"belongs to another user, {name}" in done.stderr) == (2, True), done.stderr
    finally:
        process.kill()
        process.wait()


def test_a_process_that_is_no_python_is_told_so(loadscope):
    process = subprocess.Popen(["/bin/sleep", "600"])
    try:
        what, try_ = refused(loadscope("attach", process.pid), 2)
        assert ("is no Python: it runs /" in what, "pgrep" in try_) == (True, True)
    finally:
        process.kill()
        process.wait()


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="this Python can be entered")
def test_an_older_python_is_told_what_is_possible(start, loadscope, tmp_path):
    host = start(AT_WORK, sys.executable)
    what, try_ = refused(loadscope("attach", host.pid, *WORDS, "-o", tmp_path / "session"), 2)
    assert "only Python 3.14 and later can be entered" in what
    assert f"(this is {sys.version_info[0]}.{sys.version_info[1]})" in what
    assert f"loadscope run --hold -- {sys.executable} {tmp_path}/serve.py" in try_
    assert not (tmp_path / "session").exists()


def late_session(
    folder: Path, *, is_late: bool, makes: tuple[str, ...] = (), fills: tuple[str, ...] = (), loads: int = 1
):
    """Two parameters that an engine which reports nothing loads; some are made, some are filled."""
    recorder = Recorder(folder, "ledger")
    for module in makes:
        recorder.end(recorder.begin(WeightsCreated(module, "Method", 4, (4,), "float32", "m.py:1"), 0))
    for _ in range(loads):
        span = recorder.begin(WeightsMapped("Model", 2), 0)
        for name in ("x.a.weight", "x.b.weight"):
            recorder.point(ParameterRegistered(name, "Parameter", "float32", (4,), 16, "loader", "l.py:1"), 0)
            if name in fills:
                recorder.point(WeightWritten(name, (0,), (4,), 4, "", (0,), (4,), "copy_"), 0)
        recorder.end(span)
    recorder.point(ModelLoaded(parameters=2, has_report=False), 0)
    recorder.close()
    extra = {"attached": {"at": "2026-01-01T00:00:00Z", "pid": 1}} if is_late else {}
    Manifest(id="t", verb="attach", level="ledger", engine="toy", name="tiny", extra=extra).write(folder)
    session = Session.open(folder)
    views = {view.name: view for view in parameters(session)}
    told = {(one.class_, one.parameter) for one in findings(session)}
    session.close()
    return views, told


NEVER, LATE, TWICE = "parameter/never-filled", "session/attached-late", "parameter/written-twice"


def test_of_a_parameter_that_may_be_older_than_the_session_nobody_says_that_it_was_never_filled(tmp_path):
    views, told = late_session(tmp_path / "late", is_late=True, fills=("x.a.weight",))
    assert {class_ for class_, _ in told} == {LATE}
    assert views["x.a.weight"].coverage.never_written == 0
    assert views["x.a.weight"].cells(4) == "1111"
    assert views["x.b.weight"].unknown_because == "it may have been filled before Loadscope was attached"
    assert (views["x.b.weight"].coverage.never_written, views["x.b.weight"].cells(4)) == (None, "????")
    assert (NEVER, None) in {(class_, None) for class_, _ in late_session(tmp_path / "start", is_late=False)[1]}


def test_of_one_that_was_made_since_it_is_said(tmp_path):
    views, told = late_session(tmp_path, is_late=True, makes=("x.a", "x.b"), fills=("x.a.weight",))
    assert {class_ for class_, _ in told} == {LATE, NEVER}
    assert views["x.b.weight"].coverage.never_written == 4


def test_loading_again_is_no_overlap_in_a_process_that_runs_on(tmp_path):
    filled = {"fills": ("x.a.weight", "x.b.weight"), "loads": 2}
    assert TWICE not in {class_ for class_, _ in late_session(tmp_path / "late", is_late=True, **filled)[1]}
    assert TWICE in {class_ for class_, _ in late_session(tmp_path / "start", is_late=False, **filled)[1]}
