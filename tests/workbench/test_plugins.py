"""Plugins: files of a folder, entry points, and what is said when neither has the name."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from workbench import plugins
from workbench.errors import USAGE, UserError


def foreign(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    point = EntryPoint(name=name, value=value, group="loadscope.scenarios")
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point] if group == point.group else [])


def test_names_are_those_of_the_files_without_private_ones():
    names = plugins.names(plugins.SCENARIOS)
    assert "fp8-skip" in names
    assert not any(name.startswith(("_", "-")) for name in names)


def test_a_name_may_be_spelled_with_either_dash():
    assert plugins.module_name(plugins.SCENARIOS, "fp8-skip") == plugins.module_name(plugins.SCENARIOS, "fp8_skip")


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UserError) as caught:
        plugins.load(plugins.SCENARIOS, "fp8-ship")
    assert caught.value.exit_code == USAGE
    assert "did you mean 'fp8-skip'?" in caught.value.try_


def test_another_distribution_adds_one_by_entry_point(monkeypatch):
    foreign(monkeypatch, "theirs", "json.decoder")
    assert "theirs" in plugins.names(plugins.SCENARIOS)
    assert plugins.module_name(plugins.SCENARIOS, "theirs") == "json.decoder"


def test_two_plugins_of_one_name_are_an_error_that_names_both(monkeypatch):
    foreign(monkeypatch, "fp8-skip", "their.module")
    with pytest.raises(UserError, match=r"workbench\.scenarios and their\.module"):
        plugins.module_name(plugins.SCENARIOS, "fp8-skip")


def test_verbs_cannot_be_added_from_outside(monkeypatch):
    point = EntryPoint(name="theirs", value="their.module", group="loadscope.commands")
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point])
    assert "theirs" not in plugins.names(plugins.VERBS)
