"""`loadscope trace --device`: what it takes, and how a load without values is watched."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench import launching, plugins
from workbench.errors import UserError
from workbench.launching import Load, Watch
from workbench.preflight.config import ModelFacts

FACTS = ModelFacts(architecture="", format="", fields={})


def host(tmp_path: Path, device: str):
    load = Load(model=tmp_path, engine=launching.embedded_engine(), device=device)
    return launching.host_of_load(load, FACTS, Watch(verb="trace", output=str(tmp_path / device.replace(":", "_"))))


def test_the_devices_are_listed_without_the_files_beside_them():
    assert set(plugins.names(plugins.DEVICES)) == {"cpu", "cuda", "npu", "null", "simulated-npu"}


def test_an_unknown_device_ends_before_a_session_is_made(tmp_path):
    with pytest.raises(UserError, match="unknown device 'cdua'") as caught:
        host(tmp_path, "cdua")
    assert "did you mean 'cuda'?" in caught.value.try_
    assert not list(tmp_path.iterdir())


def test_the_device_is_handed_to_the_engine_and_kept_in_the_manifest(tmp_path):
    manifest = host(tmp_path, "simulated-npu").manifest
    assert manifest.device == "simulated-npu"
    place = manifest.command.index("--device")
    assert manifest.command[place + 1] == "simulated-npu"
    assert manifest.level == launching.DEFAULT_LEVEL


def test_a_load_without_values_has_no_ledger(tmp_path):
    assert host(tmp_path, "null").manifest.level == "calls"
