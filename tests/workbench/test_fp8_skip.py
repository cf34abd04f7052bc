"""The planted skip decision: the failing load is explained, the repaired one is clean."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sessions.session import Session

FOLLOW_ON = "Weight output_partition_size = 8 is not divisible by weight quantization block_n = 128."


def test_the_host_failed_and_that_decides_the_exit_code(failed_demo):
    assert (failed_demo.exit_code, failed_demo.json["exit_code"], failed_demo.json["outcome"]) == (4, 4, "failed")


def test_the_first_finding_is_the_skip_decision_with_the_table_it_came_from(failed_demo):
    first = failed_demo.json["findings"][0]
    assert (first["class"], first["severity"], first["root"]) == ("skip-decision/fused-name", "error", True)
    assert first["module"] == "model.layers.0.linear_attn.in_proj_ba"
    words = json.dumps(first)
    assert "fallback" in words
    assert "in_proj_b" in words
    assert first["evidence"]
    assert first["remedy"]


def test_the_divisibility_error_is_its_follow_on(failed_demo):
    findings = {finding["id"]: finding for finding in failed_demo.json["findings"]}
    first = failed_demo.json["findings"][0]
    explained = [findings[number] for number in first["explains"]]
    follow_on = [finding for finding in explained if "divisi" in finding["class"]]
    assert len(follow_on) == 1
    assert follow_on[0]["root"] is False
    assert follow_on[0]["module"] == first["module"]


def test_there_is_no_other_root_cause_among_the_errors(failed_demo):
    roots = [
        finding["class"]
        for finding in failed_demo.json["findings"]
        if finding["root"] and finding["severity"] == "error"
    ]
    assert set(roots) == {"skip-decision/fused-name"}


def test_the_words_of_the_host_are_kept(failed_demo):
    log = (Path(failed_demo.json["session"]) / "host.log").read_text(encoding="utf-8")
    assert FOLLOW_ON in log
    session = Session.open(failed_demo.json["session"])
    (failure,) = session.of_kinds("stage.failed")
    assert FOLLOW_ON in failure.body.message
    session.close()


def test_the_failure_is_told_in_two_lines(failed_demo):
    assert len(failed_demo.error_lines) == 2
    assert failed_demo.error_lines[0].startswith("loadscope: the host failed with exit code 1")
    assert failed_demo.error_lines[1].startswith("try: ")


def test_the_same_checkpoint_with_the_repaired_mapping_loads_clean(loadscope, failed_demo, home):
    manifest = json.loads((Path(failed_demo.json["session"]) / "session.json").read_text(encoding="utf-8"))
    repaired = json.dumps({"qkv_proj": ["q_proj", "k_proj", "v_proj"], "gate_up_proj": ["gate_proj", "up_proj"]})
    ran = loadscope(
        "trace", manifest["model"], "--engine", "native", "--tp", "4", "--json", "--fail-on", "note",
        "-o", home / "repaired", "--", "--fused-fallback", repaired,
    )  # fmt: skip
    assert (ran.exit_code, ran.json["outcome"], ran.json["findings"]) == (0, "ok", [])


def test_a_recorded_session_is_diagnosed_alike(loadscope, failed_demo):
    ran = loadscope("diagnose", failed_demo.json["session"], "--json")
    assert (ran.exit_code, ran.json["outcome"]) == (1, "findings")
    assert ran.json["findings"] == failed_demo.json["findings"]


@pytest.mark.parametrize(("fail_on", "exit_code"), [("error", 1), ("warning", 1), ("note", 1), ("never", 0)])
def test_fail_on_sets_the_severity_that_counts(loadscope, failed_demo, fail_on, exit_code):
    assert loadscope("diagnose", failed_demo.json["session"], "--fail-on", fail_on).exit_code == exit_code


def test_every_scenario_says_what_it_expects(loadscope):
    listed = {row["name"]: row for row in loadscope("scenarios", "--json").json["scenarios"]}
    assert {name: row["expects"] for name, row in listed.items()}.items() >= {
        "clean-load": None,
        "fp8-skip": "skip-decision/fused-name",
        "int8-packed-scale": "loader/asymmetry",
        "fp8-scale-split": "scale/split",
        "nvfp4-unmapped": "precision/contradiction",
        "int8-grid-limit": "kernel/grid-limit",
        "gguf-stream-order": "shard/misplaced",
        "gguf-expert-part": "shard/misplaced",
    }.items()
    assert all(row["description"] and row["tp"] >= 1 for row in listed.values())
