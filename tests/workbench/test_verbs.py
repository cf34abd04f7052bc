"""The verbs that only tell."""

from __future__ import annotations

import json

import pytest

from workbench import plugins


def test_help_lists_every_verb_and_the_exit_codes(loadscope):
    ran = loadscope("--help")
    assert ran.exit_code == 0
    listed = {line.split()[0] for line in ran.stdout.splitlines() if line.startswith("    ") and line[4] != " "}
    assert listed == set(plugins.names(plugins.VERBS))
    assert "4 the host failed" in ran.stdout


@pytest.mark.parametrize("verb", plugins.names(plugins.VERBS))
def test_the_help_of_a_verb_has_examples(loadscope, verb):
    ran = loadscope(verb, "--help")
    assert ran.exit_code == 0
    assert "examples:\n  loadscope " in ran.stdout


def test_version_is_one_line(loadscope):
    assert loadscope("--version").stdout.startswith("loadscope ")


def test_sessions_go_to_the_folder_of_the_environment(loadscope, model, tmp_path):
    ran = loadscope("trace", model, "--engine", "native", "--level", "calls", "--json", LOADSCOPE_DIR=str(tmp_path))
    (folder,) = tmp_path.iterdir()
    assert ran.json["session"] == str(folder)
    assert ran.json["tp"] == 1


def test_an_export_as_jsonl_has_a_line_for_every_event(loadscope, demo, tmp_path):
    ran = loadscope("export", demo.json["session"], "--format", "jsonl", "-o", tmp_path / "events.jsonl")
    assert (ran.exit_code, ran.stdout) == (0, "")
    rows = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    calls = [row for row in rows if row.get("kind") == "loader.called"]
    assert len(calls) == demo.json["counts"]["weight_loader_calls"]


def test_an_export_goes_to_standard_output_when_no_file_is_named(loadscope, demo):
    ran = loadscope("export", demo.json["session"], "--format", "perfetto")
    assert ran.exit_code == 0
    assert len(json.loads(ran.stdout)["traceEvents"]) > demo.json["counts"]["weight_loader_calls"]
