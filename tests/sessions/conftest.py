"""Gives the session tests the recordings module, which is no package."""

import importlib.util
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sessions.session import Session

ROOT = Path(__file__).parents[2]
CRASH = """
import os, signal, sys
from pathlib import Path
from inspectors.probe.recorder import Recorder
from inspectors.probe.events import ShardSplit, LoaderCalled
recorder = Recorder(Path(sys.argv[1]))
for n in range(500):
    recorder.point(ShardSplit(parameter=f"p{n}", start=n))
recorder.begin(LoaderCalled(checkpoint_name="last"))
recorder.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


def _load(name):
    path = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"loadscope_tests_{name}", path)
    module = sys.modules.setdefault(spec.name, importlib.util.module_from_spec(spec))
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def recordings():
    return _load("recordings")


@pytest.fixture
def opened():
    """Opens sessions and closes them after the test."""
    sessions = []

    def open_session(folder):
        sessions.append(Session.open(folder))
        return sessions[-1]

    yield open_session
    for session in sessions:
        session.close()


@pytest.fixture
def loaded(recordings, tmp_path, opened):
    """A clean load over four ranks."""
    return opened(recordings.write_session(tmp_path / "loaded"))


@pytest.fixture
def crashed(tmp_path):
    """A session whose host was killed in the middle of a call."""
    folder = tmp_path / "crashed"
    folder.mkdir()
    ended = subprocess.run([sys.executable, "-c", CRASH, str(folder)], check=False, cwd=ROOT)
    assert ended.returncode == -signal.SIGKILL
    assert list((folder / "streams").glob("*-wal"))
    return folder
