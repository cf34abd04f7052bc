"""A host without torch: what is recorded of it, what stays out of it, and that its results do not change."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = "import json, sys; print(json.dumps(sorted(sys.modules)))\n"


def run(toy, code: str) -> subprocess.CompletedProcess[str]:
    """A host that is not armed by its first line."""
    argv = [sys.executable, "-S", "-c", code]
    options = {"env": toy.environment(), "cwd": toy.folder, "timeout": 60}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stderr
    return done


def test_a_load_of_a_toy_engine_is_recorded_call_by_call(toy, load_code):
    host = toy.run(load_code)
    assert host.code == 0, host.err
    assert host.err == ""
    calls = host.of("loader.called")
    assert [c.body["parameter"] for c in calls] == ["a.weight", "b.weight", "c.weight"]
    assert [c.body["checkpoint_name"] for c in calls] == ["a.weight", "b.weight", "c.weight"]
    assert [c.body["loader"] for c in calls] == ["toyengine.models.toy.Layer.load"] * 2 + [
        "toyengine.loading.default_loader"
    ]
    assert all(c.body["outcome"] == "returned" and c.dur_ns is not None for c in calls)
    mapped = host.of("weights.mapped")[0]
    assert {c.parent for c in calls} == {mapped.seq}
    assert host.of("engine.found")[0].body["version"] == "9.1"
    assert [e.body["checkpoint_name"] for e in host.of("tensor.read")] == ["a.weight", "b.weight", "c.weight"]
    assert host.of("tensor.read")[0].rank == -1


def test_a_partial_loader_has_the_name_and_the_place_of_its_function(toy, load_code):
    model = toy.folder / "toyengine" / "models" / "toy.py"
    toy.write("toyengine/models/toy.py", "from functools import partial\n" + model.read_text().replace(
        "_weight_loader = self.layers[0].load", "_weight_loader = partial(partial(self.layers[0].load), shard_id=1)"
    ))  # fmt: skip
    called = toy.run(load_code).of("loader.called")
    (body,) = [event.body for event in called if event.body["parameter"] == "b.weight"]
    assert body["loader"] == "toyengine.models.toy.Layer.load"
    assert "toy.py:" in body["where"]


def test_every_stage_of_the_toy_engine_gives_its_event(toy, load_code):
    counts = toy.run(load_code).counts()
    assert counts == {
        "process.started": 1, "engine.found": 1, "checkpoint.opened": 1, "skip.decided": 1, "method.selected": 1,
        "weights.created": 1, "weights.mapped": 1, "parameter.registered": 3, "tensor.read": 3, "loader.called": 3,
    }  # fmt: skip


def test_a_decision_has_the_names_tried_and_the_line_that_decided(toy, load_code):
    host = toy.run(load_code)
    decided = host.of("skip.decided")[0].body
    assert decided["module"] == "a"
    assert decided["ignored"] == ["lm_head"]
    assert decided["tried"] == ["a"]
    assert decided["expansion_source"] == "none"
    assert decided["matched_entry"] == -1
    assert decided["where"].endswith("skipping.py:5")


def test_the_result_is_the_same_with_and_without_the_probe(toy, load_code):
    assert toy.run(load_code).out == toy.run(load_code, is_armed=False).out


def test_a_bare_host_gets_only_our_probe_and_the_standard_library(toy, load_code):
    host = toy.run(load_code + MODULES)
    modules = {name.partition(".")[0] for name in json.loads(host.out.splitlines()[-1])}
    ours = {"inspectors", "backends", "toyengine", "toyadapter", "__main__"}
    assert modules - set(sys.stdlib_module_names) <= ours | {"__mp_main__"}


def test_a_host_that_imports_no_engine_opens_no_file(toy):
    host = toy.run("print('nothing to see')")
    assert host.out == "nothing to see\n"
    assert host.events == []
    assert not (toy.session / "streams").exists()


def test_nothing_happens_without_a_session(toy, load_code):
    host = toy.run(load_code + MODULES, is_armed=False)
    assert host.events == []
    names = json.loads(host.out.splitlines()[-1])
    assert {n for n in names if n.startswith("inspectors")} == {
        "inspectors", "inspectors.probe", "inspectors.probe.bootstrap",
    }  # fmt: skip


def test_arming_twice_sets_one_watch(toy, load_code):
    host = toy.run("arm(); arm()\n" + load_code)
    assert host.counts()["engine.found"] == 1
    assert host.counts()["loader.called"] == 3


def test_an_engine_imported_before_arming_is_traced_as_well(toy):
    arm = "from inspectors.probe.bootstrap import arm; arm()\n"
    done = run(toy, "import toyengine.models.toy, toyengine.reading, runpy\n" + arm + "runpy.run_module('toyengine')\n")
    assert done.stderr == ""
    kinds = [event.kind for event in toy.events()]
    assert kinds.count("loader.called") == 3
    assert kinds.count("method.selected") == 1


@pytest.mark.parametrize(
    ("manifest", "named"),
    [
        ('{"level": "everything", "engines": ["toyadapter"]}', "everything"),
        ('{"engines": []}', "names no engine"),
        ('{"engines": ["no_such_adapter"]}', "no_such_adapter"),
        ("{", "JSONDecodeError"),
    ],
)
def test_a_broken_manifest_leaves_the_host_alone_and_says_so_in_one_line(toy, load_code, manifest, named):
    (toy.session / "session.json").write_text(manifest)
    host = toy.run(load_code)
    assert host.code == 0
    assert host.out.startswith("{'a.weight'")
    assert host.err.count("\n") == 1
    assert named in host.err


def test_an_inspector_that_cannot_be_imported_is_recorded_and_the_others_see_on(toy, load_code):
    toy.write_manifest(inspectors=["elsewhere.no_such_inspector", *toy.manifest["inspectors"]])
    host = toy.run(load_code)
    assert (host.code, host.err) == (0, "")
    assert host.counts()["loader.called"] == 3
    assert [fault.body["inspector"] for fault in host.of("inspector.faulted")] == ["no_such_inspector"]


def test_the_pth_line_arms_and_leaves_no_name_of_ours(toy):
    site = toy.folder / "site"
    site.mkdir()
    (site / "loadscope.pth").write_text((ROOT / "inspectors/probe/loadscope.pth").read_text())
    code = (
        f"import site; site.addsitedir({str(site)!r}); site.addsitedir({str(site)!r})\n"
        "import sys; print([n for n in sys.modules if n.partition('.')[0] in ('inspectors', 'backends')])\n"
        "import runpy; runpy.run_module('toyengine', run_name='__main__')\n"
    )
    done = run(toy, code)
    assert done.stderr == ""
    assert done.stdout.splitlines()[0] == "[]"
    assert [event.kind for event in toy.events()].count("loader.called") == 3


def test_a_host_with_its_own_inspectors_package_keeps_it_and_is_not_recorded(toy, load_code):
    toy.write("inspectors/__init__.py", "MINE = True\n")
    site = toy.folder / "site"
    site.mkdir()
    (site / "loadscope.pth").write_text((ROOT / "inspectors/probe/loadscope.pth").read_text())
    code = f"import site; site.addsitedir({str(site)!r})\nimport inspectors; print(inspectors.MINE)\n" + load_code
    done = run(toy, code)
    assert done.stdout.startswith("True\n{'a.weight'")
    assert done.stderr.count("\n") == 1
    assert "its own package 'inspectors'" in done.stderr
    assert toy.events() == []


def test_a_script_beside_its_own_backends_package_keeps_it_and_is_not_recorded(toy, load_code):
    site = toy.folder / "site"
    site.mkdir()
    (site / "loadscope.pth").write_text((ROOT / "inspectors/probe/loadscope.pth").read_text())
    toy.write("app/backends/__init__.py", "MINE = True\n")
    code = f"import site; site.addsitedir({str(site)!r})\nimport sys; sys.path.insert(0, {str(toy.folder / 'app')!r})\n"
    done = run(toy, code + load_code + "import backends; print(backends.MINE)")
    assert done.stdout.endswith("True\n")
    assert "its own package 'backends'" in done.stderr
    assert toy.events() == []
