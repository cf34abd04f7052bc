"""Which tracepoints an engine's sources have, read without importing them."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest

from inspectors.probe.tracepoint import Computed, Engine, Tracepoint
from workbench import arming, hostpython
from workbench.errors import UserError
from workbench.survey import survey

METHODS = """
import engine_that_is_not_installed
class Method:
    def create(self, layer, size): ...
if engine_that_is_not_installed.flag:
    class Plain(Method):
        def create(self, layer, size): ...
else:
    def skipped(prefix, ignored):
        parts = [prefix]
        return parts in ignored
"""
MODELS = """
from engine.methods import Method, skipped as is_skipped
class Model:
    def load_weights(self, weights): ...
    def forward(self, ids): ...
class Other:
    def forward(self, ids): ...
class Special(Method):
    def create(self, layer, size): ...
"""


@pytest.fixture
def resolved(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "__init__.py").write_text("raise SystemExit('imported')")
    (tmp_path / "methods.py").write_text(METHODS)
    (tmp_path / "models" / "toy.py").write_text(MODELS)
    (tmp_path / "models" / "broken.py").write_text("class (")

    def resolve(target, arguments=None, version="1.0", **versions):
        point = Tracepoint("weight.load", "loader.called", f"engine.{target}", arguments or {}, **versions)
        engine = Engine("engine", "engine", "engine", "engine:rank", (point,), lambda _: ())
        (found,) = survey(engine, tmp_path, version)
        return found

    return resolve


@pytest.mark.parametrize(
    ("target", "places"),
    [
        ("methods:skipped", ("methods.py:9",)),
        ("models.toy:is_skipped", ("models/toy.py:2",)),
        ("methods:Plain.create", ("methods.py:7",)),
        ("methods:Method+.create", ("methods.py:4", "methods.py:7", "models/toy.py:9")),
        ("models.*:*.forward", ("models/toy.py:5", "models/toy.py:7")),
        ("models.*:*[load_weights].forward", ("models/toy.py:5",)),
        ("methods:Method.absent", ()),
        ("methods:Absent+.create", ()),
        ("nowhere:skipped", ()),
    ],
)
def test_every_way_to_name_a_function_is_resolved(resolved, target, places):
    found = resolved(target)
    assert set(found.places) == set(places)
    assert found.is_fine is bool(places)


def test_a_plugin_is_looked_for_beside_its_engine_and_missed_by_nobody(tmp_path):
    for package in ("engine", "plugin"):
        (tmp_path / package).mkdir()
    (tmp_path / "plugin" / "reading.py").write_text("def read(file): ...\n")
    points = [Tracepoint("tensor.read", "tensor.read", f"{package}.reading:read") for package in ("plugin", "absent")]
    engine = Engine("engine", "engine", "engine", "engine:rank", tuple(points), lambda _: ())
    there, absent = survey(engine, tmp_path / "engine", "1.0")
    assert (there.places, there.is_expected, there.is_fine) == (("reading.py:1",), True, True)
    assert (absent.places, absent.is_expected, absent.is_fine) == ((), False, True)


def test_names_that_the_function_does_not_have_are_told(resolved):
    computed = Computed(lambda *_: None, ("ignored", "local:parts", "local:pieces"))
    found = resolved("methods:skipped", {"module": "prefix", "entries": "listed", "tried": computed, "is": "result"})
    assert (found.lacks, found.is_fine) == (("listed", "local:pieces"), False)


def test_what_another_version_has_is_not_missing(resolved):
    assert resolved("methods:absent", since="2.0").is_fine
    assert not resolved("methods:absent", since="1.0").is_fine


def test_a_python_that_cannot_be_asked_is_an_error_of_two_lines():
    engine = SimpleNamespace(name="toy", module="toy_engine_of_nobody", distribution="toy-engine-of-nobody")
    with pytest.raises(UserError, match="there is no Python at /nowhere/python"):
        hostpython.installed("/nowhere/python", engine)
    with pytest.raises(UserError, match="has no toy-engine-of-nobody"):
        hostpython.installed(sys.executable, engine)
    with pytest.raises(UserError, match="cannot say what it has"):
        hostpython.installed("/bin/echo", engine)


def test_an_installed_package_is_found_with_its_folder_and_version():
    engine = SimpleNamespace(name="pytest", module="pytest", distribution="pytest")
    found = hostpython.installed(sys.executable, engine)
    assert (found.version, found.folder.name) == (pytest.__version__, "pytest")


def test_another_environments_host_is_shown_only_what_enters_hosts(monkeypatch, tmp_path):
    command = arming.armed(("/elsewhere/bin/python", "-m", "engine", "--tp", "2"))
    assert command == ("/elsewhere/bin/python", "-c", arming.ARM_AND_RUN, "engine", "--tp", "2")
    monkeypatch.setattr(arming, "is_installed", lambda: True)
    door = arming.environment(tmp_path, "calls", command)["PYTHONPATH"].split(":")[0]
    assert door == str(tmp_path / "door")
    assert {path.name for path in (tmp_path / "door").iterdir()} == {"inspectors", "backends"}
    assert arming.environment(tmp_path, "calls", ("bash", "ci.sh")).get("PYTHONPATH", "").split(":")[0] != door


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--rank", "4", "--tp", "4"), "--rank 4: with --tp 4 a rank is 0 to 3"),
        (("--rank", "x"), "--rank x"),
        (("--rank", "0"), "the engine native runs in this Python"),
        (("--python", sys.executable), "the engine native runs in this Python"),
        (("--engine", "sglang", "--python", "/nowhere/python"), "there is no Python at /nowhere/python"),
    ],
)
def test_a_rank_or_python_that_cannot_be_is_refused(loadscope, tmp_path, words, says):
    ran = loadscope("trace", tmp_path, *words)
    assert (ran.exit_code, len(ran.error_lines)) == (2, 2)
    assert says in ran.error_lines[0]


def test_doctor_says_what_is_missing_and_ends_with_5(loadscope, tmp_path):
    package = tmp_path / "sglang"
    (package / "srt" / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "srt" / "models" / "toy.py").write_text("class M:\n    def load_weights(self, weights): ...\n")
    ran = loadscope("doctor", "--engine", "sglang", "--json", PYTHONPATH=f"{tmp_path}:{arming.ROOT}")
    assert (ran.exit_code, ran.json["outcome"], ran.json["engine_version"]) == (5, "incomplete", "source")
    there = {one["target"] for one in ran.json["tracepoints"] if one["places"]}
    assert there == {"sglang.srt.models.*:*.load_weights"}
    assert json.dumps(ran.json)
