"""The six defects of filling: coverage shows exactly the elements that a load without the probe finds at fault."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sessions.provenance import element
from sessions.session import Session
from sessions.taken import bytes_of
from workbench import cli
from workbench.recipe import checkpoint_of
from workbench.scenario import scenario_named

CLEAN = "clean"
DEFECTS = ("unwritten-slot", "double-write", "swapped-halves", "dropped-scale", "rank-offset", "left-twice")
LAYER = "model.layers.1"
UP_SCALE = f"{LAYER}.mlp.up_proj.weight_scale"
ROWS_BY_CHANCE = 8
"""Rows with fewer numbers than this are compared number by number: theirs are unique in the checkpoint."""

Loads = Callable[[str], tuple[Path, dict[str, np.ndarray]]]


@pytest.fixture(scope="module")
def model(tmp_path_factory, variables) -> Path:
    """The checkpoint of the defects, with float32 values that are there only once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", variables["XDG_CACHE_HOME"])
        made = checkpoint_of(scenario_named(DEFECTS[0]), is_quiet=True)
    folder = tmp_path_factory.mktemp("model")
    for path in made.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (file,) = folder.glob("*.safetensors")
    listed = header_of(file)
    raw, at = bytearray(file.read_bytes()), 1
    for entry in listed.values():
        begin, end = entry["data_offsets"]
        if entry["dtype"] == "F32":
            count = (end - begin) // 4
            raw[entry["base"] + begin : entry["base"] + end] = np.arange(at, at + count, dtype="<f4").tobytes()
            at += count
    file.write_bytes(bytes(raw))
    return folder


def header_of(file: Path) -> dict[str, dict[str, Any]]:
    """The header of a safetensors file; `base` is where its data begin."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        found = json.loads(opened.read(length))
    return {name: {**entry, "base": 8 + length} for name, entry in found.items() if name != "__metadata__"}


@pytest.fixture(scope="module")
def loads(tmp_path_factory, variables, model) -> Loads:
    """Every load once: the folder of its recording, and what was counted without the probe."""
    out = tmp_path_factory.mktemp("loads")
    root = Path(__file__).resolve().parents[2]
    subprocess.run(
        [sys.executable, Path(__file__).with_name("load_defects.py"), out, model, "2", *DEFECTS],
        env={**variables, "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])},
        check=True, capture_output=True, timeout=200,
    )  # fmt: skip

    def of(name: str) -> tuple[Path, dict[str, np.ndarray]]:
        return out / name, dict(np.load(out / f"{name}.npz"))

    return of


@pytest.fixture
def told(loads, capsys) -> Callable[..., dict[str, Any]]:
    """`loadscope coverage SESSION WORDS --json` as an object, with its exit code checked."""

    def ask(name: str, *words: str, verb: str = "coverage") -> dict[str, Any]:
        code = cli.main([verb, str(loads(name)[0]), *words, "--json"])
        said = json.loads(capsys.readouterr().out)
        assert said["exit_code"] == code
        return said

    return ask


@pytest.fixture
def opened(loads) -> Iterator[Callable[[str], Session]]:
    sessions: list[Session] = []

    def open_(name: str) -> Session:
        sessions.append(Session.open(loads(name)[0]))
        return sessions[-1]

    yield open_
    for session in sessions:
        session.close()


def mask(shape: list[int], boxes: list[dict[str, Any]]) -> np.ndarray:
    """The elements of boxes, with every box inside the shape and none said twice."""
    out = np.zeros(shape, dtype=int)
    for box in boxes:
        out[tuple(slice(a, b) for a, b in zip(box["start"], box["stop"], strict=True))] += 1
        assert all(0 <= a < b <= n for a, b, n in zip(box["start"], box["stop"], shape, strict=True))
    assert out.max(initial=0) <= 1
    return out.astype(bool)


def misfilled(actual: np.ndarray, right: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Elements written once whose bytes are not those of a right load; whole rows where numbers are few and many."""
    differs = (actual != right).any(axis=-1)
    if differs.ndim > 1 and differs.shape[-1] >= ROWS_BY_CHANCE:
        differs = np.broadcast_to(differs.any(axis=-1, keepdims=True), differs.shape)
    return differs & (times == 1)


@pytest.mark.parametrize("name", [CLEAN, *DEFECTS])
def test_coverage_shows_exactly_the_elements_at_fault(loads, told, name):
    counted, right = loads(name)[1], loads(CLEAN)[1]
    said = told(name, "--all")
    assert said["exit_code"] == (name != CLEAN)
    rows = {(row["rank"], row["parameter"]): row for row in said["parameters"]}
    assert {f"times|{rank}|{parameter}" for rank, parameter in rows} == {k for k in counted if k.startswith("times")}
    at_fault = 0
    for (rank, parameter), row in rows.items():
        times, values = counted[f"times|{rank}|{parameter}"], counted[f"values|{rank}|{parameter}"]
        wrong = misfilled(values, right[f"values|{rank}|{parameter}"], times)
        assert np.array_equal(mask(row["shape"], row["never"]), times == 0), parameter
        assert np.array_equal(mask(row["shape"], row["twice"]), times >= 2), parameter
        places = [box for one in row["misplaced"] for box in one["boxes"]]
        assert np.array_equal(mask(row["shape"], places), wrong), parameter
        assert (row["never_written"], row["written_twice"]) == ((times == 0).sum(), (times >= 2).sum())
        at_fault += int((wrong | (times != 1)).sum())
    assert (at_fault > 0) == (name != CLEAN)


@pytest.mark.parametrize("name", DEFECTS)
def test_without_all_only_the_parameters_at_fault_are_listed(told, name):
    rows = told(name)["parameters"]
    assert rows
    assert all(row["never"] or row["twice"] or row["misplaced"] for row in rows)
    assert all(LAYER in row["parameter"] for row in rows)


@pytest.mark.parametrize("name", DEFECTS)
def test_the_first_finding_is_the_one_the_scenario_expects(told, name):
    found = told(name, verb="diagnose")["findings"]
    assert found[0]["class"] == scenario_named(name).expects
    assert found[0]["root"]


def test_the_right_load_has_no_finding(told):
    assert told(CLEAN, verb="diagnose")["findings"] == []


@pytest.mark.parametrize("name", [CLEAN, *DEFECTS])
def test_what_nobody_consumed_is_what_is_found_in_no_parameter(loads, told, model, name):
    (file,) = model.glob("*.safetensors")
    left = {one["tensor"]: one for one in told(name)["checkpoint"]}
    held = np.concatenate(
        [v.reshape(-1, 4).view("<f4").ravel() for k, v in loads(name)[1].items()
         if k.startswith("values") and "weight_" in k and loads(name)[1][k.replace("values", "times", 1)].all()]
    )  # fmt: skip
    raw = file.read_bytes()
    for tensor, entry in header_of(file).items():
        if entry["dtype"] != "F32" or ("gate_up" in tensor):
            continue
        begin, end = (entry["base"] + at for at in entry["data_offsets"])
        values = np.frombuffer(raw[begin:end], "<f4").reshape(entry["shape"])
        never = mask(entry["shape"], left[tensor]["never"]) if tensor in left else np.zeros(entry["shape"], bool)
        is_whole = not any(part in tensor for part in ("q_proj", "v_proj", "gate_proj")) or name in (
            CLEAN,
            "swapped-halves",
        )
        if is_whole:  # parameters that were never written in part are left out of what is held
            assert np.array_equal(never, ~np.isin(values, held)), tensor
        else:
            assert not never.any(), tensor


def test_a_double_write_names_both_calls_with_tensor_loader_and_line(opened, told):
    session = opened("double-write")
    row = next(row for row in told("double-write")["parameters"] if row["parameter"].endswith("o_proj.weight"))
    (pair,) = row["overlaps"]
    assert [box["box"] for box in pair["boxes"]] == ["[:, :]"]
    calls = [session.find(pair[which]["call"]) for which in ("first", "second")]
    assert calls[0].position < calls[1].position
    for call, which in zip(calls, ("first", "second"), strict=True):
        assert (call.kind, call.body.parameter) == ("loader.called", row["parameter"])
        assert (pair[which]["tensor"], pair[which]["where"]) == (call.body.checkpoint_name, call.body.where)
        assert pair[which]["loader"].endswith("RowParallelLinear.weight_loader")


@pytest.mark.parametrize(
    ("name", "shard", "box", "tensor"),
    [("unwritten-slot", "'k'", "[32:48, :]", "self_attn.k_proj"), ("left-twice", "1", "[64:128, :]", "mlp.up_proj")],
)
def test_a_slot_that_no_call_filled_is_named_with_its_rows_and_the_tensor_that_was_left(told, name, shard, box, tensor):
    for row in told(name)["parameters"]:
        (empty,) = [slot for slot in row["slots"] if slot["is_inferred"]]
        assert (empty["shard_id"], empty["box"], empty["calls"]) == (shard, box, [])
        assert empty["never_written"] == empty["elements"] == row["never_written"]
        assert row["awaited"] == [f"{LAYER}.{tensor}.{row['parameter'].rpartition('.')[2]}"]


def test_a_part_that_two_ranks_took_and_one_that_nobody_took_are_told_by_rank(told):
    said = told("rank-offset")
    left = next(one for one in said["checkpoint"] if one["tensor"] == UP_SCALE)
    assert [box["box"] for box in left["never"]] == ["[0:64, :]"]
    assert {one["rank"]: [b["box"] for b in one["boxes"]] for one in left["taken_by"]} == {
        key: ["[64:128, :]"] for key in (0, 1)
    }
    assert (said["ranks"], said["tp"]) == ([0, 1], 2)


def test_every_element_leads_to_the_bytes_that_stand_in_it(loads, opened, model):
    session, values = opened(CLEAN), loads(CLEAN)[1]
    chosen = np.random.default_rng(1)
    seen = 0
    for key, raw in values.items():
        kind, rank, name = key.split("|")
        if kind != "values":
            continue
        for _ in range(3):
            index = tuple(int(chosen.integers(n)) for n in raw.shape[:-1])
            found = element(session, name, index, int(rank))
            (filled,) = found.filled
            source = filled.source
            with (model / source.tensor.file).open("rb") as file:
                file.seek(source.begin)
                assert file.read(source.end - source.begin) == raw[index].tobytes(), (name, index)
            seen += 1
    assert seen == 3 * 70


@pytest.mark.parametrize("name", [CLEAN, "rank-offset", "left-twice"])
def test_bytes_lead_to_the_elements_that_hold_them_and_those_lead_back(loads, opened, model, name):
    session, values = opened(name), loads(name)[1]
    (file,) = model.glob("*.safetensors")
    raw, chosen = file.read_bytes(), np.random.default_rng(2)
    base = next(iter(header_of(file).values()))["base"]
    begins = chosen.integers(base, len(raw) - 300, 25).tolist()
    used = 0
    for begin in begins:
        for part in bytes_of(session, file.name, begin, begin + int(chosen.integers(1, 300))):
            for taken in part.taken:
                rank, parameter = taken.view.rank, taken.view.name
                for start, length in taken.boxes:
                    used += 1
                    corner = tuple(a + n - 1 for a, n in zip(start, length, strict=True))
                    for index in (start, corner):
                        back = element(session, parameter, index, rank)
                        sources = [(one.source.begin, one.source.end) for one in back.filled]
                        assert any(a < part.end and b > part.begin for a, b in sources)
                        a, b = sources[-1]
                        assert raw[a:b] == values[f"values|{rank}|{parameter}"][index].tobytes()
    assert used > 25


def test_bytes_that_nobody_used_are_said_so(told, model):
    (file,) = model.glob("*.safetensors")
    entry = header_of(file)[UP_SCALE]
    begin = entry["base"] + entry["data_offsets"][0]
    (before,) = told("rank-offset", "--bytes", f"{file.name}:{begin + 63 * 4}-{begin + 64 * 4}")["tensors"]
    assert (before["is_unused"], before["filled"]) == (True, [])
    (both,) = told("rank-offset", "--bytes", f"{file}:{begin + 63 * 4}-{begin + 65 * 4}")["tensors"]
    assert [(one["rank"], [b["box"] for b in one["boxes"]]) for one in both["filled"]] == [
        (0, ["[64, :]"]),
        (1, ["[64, :]"]),
    ]
    outside = told("rank-offset", "--bytes", f"{file.name}:0-9")
    assert (outside["tensors"], outside["of_no_tensor"]) == ([], [[0, 9]])


def test_an_element_is_told_with_both_writes_its_value_and_the_decision(loads, told, model):
    name = f"{LAYER}.mlp.gate_up_proj.weight_scale"
    said = told("left-twice", "--element", f"{name}[-125,0]", "--rank", "1")
    value = loads("left-twice")[1][f"values|1|{name}"][3, 0].view("<f4")[0]
    assert (said["index"], said["rank"], said["exit_code"]) == ([3, 0], 1, 1)
    assert [write["value"] for write in said["writes"]] == [value, value]
    assert len({write["call"] for write in said["writes"]}) == 2
    assert {write["tensor"] for write in said["writes"]} == {f"{LAYER}.mlp.gate_proj.weight_scale"}
    assert [one["kind"] for one in said["decision"]] == ["skip.decided", "method.selected"]
    assert {one["module"] for one in said["decision"]} == {f"{LAYER}.mlp.gate_up_proj"}


def test_an_element_that_another_rank_should_hold_says_so(told):
    said = told("rank-offset", "--element", f"{LAYER}.mlp.gate_up_proj.weight[70,1]", "--rank", "0")
    assert ([one["kind"] for one in said["misplaced"]], said["exit_code"]) == (["rank"], 1)
    said = told("rank-offset", "--element", f"{LAYER}.mlp.gate_up_proj.weight[70,1]", "--rank", "1")
    assert (said["misplaced"], said["exit_code"]) == ([], 0)


def test_a_checkpoint_that_has_changed_is_not_read(loads, told, model, tmp_path):
    said = told(CLEAN, "--element", "model.norm.weight[0]")
    assert said["writes"][0]["raw"]
    (file,) = model.glob("*.safetensors")
    kept = file.read_bytes()
    for changed, why in (
        (None, "not where it was loaded from"),
        (kept.replace(b"model.norm.weight", b"model.term.weight"), "another file"),
    ):
        try:
            file.unlink()
            if changed is not None:
                file.write_bytes(changed)
            (write,) = told(CLEAN, "--element", "model.norm.weight[0]")["writes"]
        finally:
            file.write_bytes(kept)
        assert (write["raw"], write["value"]) == (None, None)
        assert why in write["not_read"]
        assert write["begin"] is not None


@pytest.mark.parametrize(
    ("words", "what", "try_"),
    [
        (
            ("--element", "model.norm.weigth[0]"),
            "has no parameter 'model.norm.weigth'",
            "did you mean model.norm.weight?",
        ),
        (("--element", "model.norm.weight[64]"), "64 is out of range in dimension 0", "from -64 to 63"),
        (("--element", "model.norm.weight[0,1]"), "2 numbers for model.norm.weight of shape [64]", "each of its 1"),
        (("--element", "model.norm.weight"), "0 numbers", "one number for each"),
        (("--element", "model.norm.weight[0:2]"), "'0:2' is a slice", "NAME[i,j]"),
        (("--element", "model.norm.weight[one]"), "'one' is no whole number", "NAME[i,j]"),
        (("--element", "model.norm.weight[1"), "names no element", "NAME[i,j]"),
        (("--element", "model.norm.weight[1]", "--rank", "5"), "not on rank 5", "--rank 0, 1"),
        (("--bytes", "other.safetensors:1-2"), "no file 'other.safetensors'", "did you mean model-00001"),
        (("--bytes", "model-00001-of-00001.safetensors:9-3"), "byte 3 does not come after byte 9", "END excluded"),
        (("--bytes", "model-00001-of-00001.safetensors"), "names no bytes", "FILE:START-END"),
        (("--parameter", "qqkv"), "no parameter matches 'qqkv'", "part of its name"),
        (("--rank", "4"), "no parameter is on rank 4", "ranks 0, 1"),
    ],
)
def test_a_question_that_cannot_be_answered_is_told_in_two_lines(loads, capsys, words, what, try_):
    assert cli.main(["coverage", str(loads(CLEAN)[0]), *words]) == 2
    printed = capsys.readouterr()
    first, second = printed.err.splitlines()
    assert printed.out == ""
    assert what in first
    assert try_ in second


def test_what_a_person_reads_has_calls_boxes_slots_and_bytes(loads, capsys):
    for name, words in (
        ("left-twice", ("[64:128, :]", "first", "then", "slot 1", "no call filled it", "gate_proj.weight as 0")),
        ("rank-offset", ("from elsewhere", "rank 0's part", "nobody took", "rank 1")),
        ("swapped-halves", ("the place of slot 0", "!!!!")),
    ):
        assert cli.main(["coverage", str(loads(name)[0])]) == 1
        out = capsys.readouterr().out
        assert [word for word in words if word not in out] == []
    assert cli.main(["coverage", str(loads(CLEAN)[0])]) == 0
    assert capsys.readouterr().out == "70 of 70 parameters were filled exactly once\n"


def test_filters_narrow_to_parameters_of_a_pattern_on_one_rank(told):
    rows = told("left-twice", "--parameter", "model.layers.?.mlp.gate_up_proj.weight", "--rank", "1", "--all")[
        "parameters"
    ]
    names = [f"model.layers.{n}.mlp.gate_up_proj.weight" for n in (0, 1)]
    assert [(row["parameter"], row["rank"]) for row in rows] == [(name, 1) for name in names]
