"""Gives the session tests the recordings module, which is no package."""

import importlib.util
import sys
from pathlib import Path

import pytest

from sessions.session import Session


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
