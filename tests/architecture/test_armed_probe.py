"""What an armed probe brings into a host process, seen from inside one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHOW = "import sys, json; print(json.dumps(sorted(sys.modules)))"
ARM = "from inspectors.probe.bootstrap import arm; arm(is_at_startup=True); "


def modules(code: str, session: Path | None) -> set[str]:
    """The modules in a fresh Python that ran `code`; `session` arms it."""
    variables = {key: value for key, value in os.environ.items() if not key.startswith("LOADSCOPE_")}
    if session is not None:
        variables["LOADSCOPE_SESSION"] = str(session)
    variables["PYTHONPATH"] = str(ROOT)
    # Without -S an environment's other .pth files would bring in their modules.
    done = subprocess.run([sys.executable, "-S", "-c", code], env=variables, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return set(json.loads(done.stdout))


@pytest.fixture
def session(tmp_path: Path) -> Path:
    manifest = {
        "schema": 1,
        "level": "calls",
        "engines": ["backends.engines.native"],
        "inspectors": ["inspectors.decisions"],
    }
    (tmp_path / "session.json").write_text(json.dumps(manifest), encoding="utf-8")
    return tmp_path


def test_an_armed_process_that_imports_no_engine_keeps_no_module_of_ours(session: Path):
    before, after = modules(SHOW, None), modules(ARM + SHOW, session)
    came = {name.partition(".")[0] for name in after - before}
    assert came <= set(sys.stdlib_module_names)


def test_an_armed_process_that_imports_an_engine_gets_our_probe_and_the_standard_library(session: Path):
    engine = f"import types, sys; import inspectors.probe.agent as a; a.start_probe({str(session)!r}); "
    before, after = modules(SHOW, None), modules(ARM + engine + SHOW, session)
    came = {name.partition(".")[0] for name in after - before}
    assert "inspectors" in came
    assert came <= set(sys.stdlib_module_names) | {"inspectors", "backends"}
    assert not {name for name in after if name.startswith("backends.native")}


def test_a_process_without_a_session_gets_the_door_and_nothing_behind_it():
    came = {name for name in modules(ARM + SHOW, None) - modules(SHOW, None) if name.startswith("inspectors")}
    assert came == {"inspectors", "inspectors.probe", "inspectors.probe.bootstrap"}
