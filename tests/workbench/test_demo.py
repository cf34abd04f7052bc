"""The demo's numbers, compared with numbers that were counted in another way."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from workbench.launching import NEW_TOKENS, PROMPT_IDS

TP = 4
COUNTER = Path(__file__).with_name("count_calls.py")


@pytest.fixture(scope="module")
def counted(model: Path, variables: dict[str, str]) -> dict[str, Any]:
    """The same load without the probe, counted by sys.setprofile."""
    command = [sys.executable, COUNTER, model, str(TP), ",".join(map(str, PROMPT_IDS)), str(NEW_TOKENS)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def headers(model: Path) -> dict[str, dict[str, Any]]:
    """name -> entry of every tensor on disk, read by hand."""
    found: dict[str, dict[str, Any]] = {}
    for path in model.glob("*.safetensors"):
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            found.update(json.loads(file.read(length)))
    found.pop("__metadata__", None)
    return found


def test_the_demo_is_clean_and_says_so(demo):
    assert (demo.exit_code, demo.json["outcome"], demo.json["findings"]) == (0, "ok", [])
    assert demo.stdout.count("\n") == 1


def test_the_object_has_the_agreed_fields(demo):
    said = demo.json
    assert {"schema", "verb", "outcome", "exit_code", "session", "engine", "engine_version", "device", "tp"} <= set(
        said
    )
    assert (said["schema"], said["verb"], said["engine"], said["device"], said["tp"]) == (
        1,
        "demo",
        "native",
        "cpu",
        TP,
    )
    assert said["duration_s"] > 0
    assert (Path(said["session"]) / "session.json").is_file()


def test_tensors_are_counted_as_in_the_index(demo, model):
    index = json.loads((model / "model.safetensors.index.json").read_text(encoding="utf-8"))
    assert demo.json["counts"]["checkpoint_tensors"] == len(index["weight_map"])


def test_loader_calls_are_counted_as_by_the_profiler(demo, counted):
    assert demo.json["counts"]["weight_loader_calls"] == counted["weight_loader_calls"]


def test_every_rank_is_given_every_tensor_once(demo, model):
    assert demo.json["counts"]["weight_loader_calls"] == TP * len(headers(model))


def test_shard_splits_are_counted_as_by_the_profiler(demo, counted):
    assert demo.json["counts"]["shard_splits"] == counted["shard_splits"] > 0


def test_skip_decisions_are_counted_as_by_the_profiler(demo, counted):
    assert demo.json["counts"]["skip_decisions"] == counted["skip_decisions"] > 0


def test_parameters_and_elements_are_those_of_the_models(demo, counted):
    assert demo.json["counts"]["parameters"] == counted["parameters"]
    assert demo.json["coverage"]["elements"] == counted["elements"]


def test_every_element_is_written_once_and_every_byte_is_used(demo, model):
    coverage = demo.json["coverage"]
    assert (coverage["never_written"], coverage["written_twice"], coverage["never_consumed_bytes"]) == (0, 0, 0)
    spans = [entry["data_offsets"] for entry in headers(model).values()]
    assert coverage["checkpoint_bytes"] == sum(end - begin for begin, end in spans)


def test_kernel_launches_are_counted_as_by_a_dispatch_mode_of_ours(demo, counted):
    assert demo.json["counts"]["kernel_launches"] == counted["kernel_launches"] > 0


def test_the_checkpoint_is_made_once(demo, loadscope, model, home):
    before = sorted((path.name, path.stat().st_mtime_ns) for path in model.iterdir())
    again = loadscope("demo", "--level", "calls", "--json", "-o", home / "demo-again")
    assert again.exit_code == 0
    assert sorted((path.name, path.stat().st_mtime_ns) for path in model.iterdir()) == before
    assert again.json["counts"] == demo.json["counts"]
    assert "coverage" not in again.json


def test_without_json_the_summary_names_counts_and_session(loadscope, home, demo):
    ran = loadscope("demo", "--level", "calls", "-o", home / "demo-text")
    assert ran.exit_code == 0
    assert f"{demo.json['counts']['weight_loader_calls']:,} weight loader calls" in ran.stdout
    assert "findings  none" in ran.stdout
    assert str(home / "demo-text") in ran.stdout
