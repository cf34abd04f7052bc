"""What a person gets wrong: two lines, the right exit code, and nothing lost."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

INDEX = "model.safetensors.index.json"


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


def first_file(model: Path) -> Path:
    return min(model.glob("*.safetensors"))


def edit_header(path: Path, change: Callable[[bytes], bytes]) -> None:
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = change(data[8 : 8 + length]).ljust(length)
    path.write_bytes(data[:8] + header[:length] + data[8 + length :])


BREAKAGES: dict[str, tuple[Callable[[Path], object], int, str]] = {
    "missing config": (lambda m: (m / "config.json").unlink(), 5, "config.json"),
    "config not JSON": (lambda m: (m / "config.json").write_text("{", encoding="utf-8"), 5, "is not JSON"),
    "config a list": (lambda m: (m / "config.json").write_text("[]", encoding="utf-8"), 5, "expected an object"),
    "no architectures": (lambda m: edit_json(m / "config.json", architectures=None), 5, "architectures"),
    "field of a wrong type": (lambda m: edit_json(m / "config.json", quantization_config=3), 5, "quantization_config"),
    "unknown architecture": (
        lambda m: edit_json(m / "config.json", architectures=["Qwen3NexForCausalLM"]), 5, "Qwen3NexForCausalLM"
    ),
    "unknown method": (
        lambda m: edit_json(m / "config.json", quantization_config={"quant_method": "fp9"}), 5, "fp9"
    ),
    "truncated file": (lambda m: os.truncate(first_file(m), 100_000), 5, "truncated"),
    "empty file": (lambda m: first_file(m).write_bytes(b""), 5, "not a safetensors file"),
    "header not JSON": (lambda m: edit_header(first_file(m), lambda _: b"not json"), 5, "not a safetensors file"),
    "header offsets wrong": (
        lambda m: edit_header(first_file(m), lambda h: h.replace(b'offsets":[0,', b'offsets":[9,', 1)), 5, "needs"
    ),
    "file of the index absent": (lambda m: first_file(m).unlink(), 5, "model-00001-of"),
    "index not JSON": (lambda m: (m / INDEX).write_text("nope", encoding="utf-8"), 5, INDEX),
    "index names a tensor nobody has": (
        lambda m: edit_json(m / INDEX, weight_map={"ghost.weight": first_file(m).name}), 5, "ghost.weight"
    ),
    "no weights at all": (
        lambda m: [path.unlink() for path in (*m.glob("*.safetensors"), m / INDEX)], 5, "no safetensors file"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BREAKAGES)
def test_a_broken_checkpoint_is_refused_before_a_host_starts(loadscope, own_model, tmp_path, name):
    breakage, exit_code, words = BREAKAGES[name]
    breakage(own_model)
    ran = loadscope("trace", own_model, "--engine", "native", "--tp", "4", "-o", tmp_path / "session")
    assert ran.exit_code == exit_code, ran.stderr
    assert len(ran.error_lines) == 2
    assert words in ran.error_lines[0]
    assert ran.error_lines[1].startswith("try: ")
    assert ran.stdout == ""
    assert not (tmp_path / "session").exists()


@pytest.mark.parametrize(
    ("words", "exit_code", "what", "try_"),
    [
        (["trace", "/nowhere/model", "--engine", "native"], 2, "/nowhere/model does not exist", "config.json"),
        (["trace", "{model}", "--engine", "nativ"], 2, "unknown engine 'nativ'", "did you mean 'native'?"),
        (["trace", "{model}", "--tp", "3"], 2, "--tp 3 does not divide", "--tp 1, 2 or 4"),
        (["trace", "{model}", "--engine", "native", "--tp", "0"], 2, "--tp 0", "--tp 1"),
        (["trace", "{model}", "--engine", "native", "--tp", "two"], 2, "invalid int value: 'two'", "--help"),
        (["trace", "{model}", "--engine", "native", "--level", "all"], 2, "--level", "--help"),
        (["trace", "{model}", "--engine", "native", "--prompt-ids", "one"], 2, "--prompt-ids", "1,2,3"),
        (["trace", "{model}/config.json", "--engine", "native"], 2, "is a file, not a folder", "give the folder"),
        (["demo", "--scenario", "fp8-skp"], 2, "unknown scenario 'fp8-skp'", "did you mean 'fp8-skip'?"),
        (["demo", "--tp", "3"], 2, "--tp 3 does not divide", "--tp 1, 2 or 4"),
        (["demoo"], 2, "unknown verb 'demoo'", "did you mean 'demo'?"),
        ([], 2, "no verb", "loadscope --help"),
        (["run"], 2, "no command", "loadscope run --"),
        (["open", "/nowhere/session"], 5, "/nowhere/session", "folder"),
        (["diagnose", "/nowhere/session"], 5, "/nowhere/session", "folder"),
        (
            ["export", "{session}", "--format", "perfeto"],
            2,
            "unknown export format 'perfeto'",
            "did you mean 'perfetto'?",
        ),
        (["export", "{session}", "--format", "jsonl", "-o", "/nowhere/out"], 2, "/nowhere/out", "another file"),
        (["open", "{session}"], 2, "need a terminal", "loadscope diagnose"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
)
def test_a_wrong_word_gets_two_lines(loadscope, model, demo, words, exit_code, what, try_):
    places = {"model": model, "session": demo.json["session"]}
    ran = loadscope(*(word.format(**places) for word in words))
    assert ran.exit_code == exit_code, ran.stderr
    assert len(ran.error_lines) == 2, ran.stderr
    assert what in ran.error_lines[0]
    assert try_ in ran.error_lines[1]


def test_with_json_an_error_is_also_an_object(loadscope):
    ran = loadscope("trace", "/nowhere/model", "--engine", "native", "--json")
    assert ran.json["error"]["what"] == "/nowhere/model does not exist"
    assert (ran.json["exit_code"], ran.json["session"], ran.json["verb"]) == (2, None, "trace")


def test_an_output_folder_that_cannot_be_made_is_named(loadscope, model, tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    ran = loadscope("trace", model, "--engine", "native", "-o", tmp_path / "file" / "session")
    assert (ran.exit_code, len(ran.error_lines)) == (2, 2)
    assert str(tmp_path / "file" / "session") in ran.error_lines[0]


def test_a_folder_with_something_in_it_is_not_written_to(loadscope, model, tmp_path):
    (tmp_path / "kept").write_text("mine", encoding="utf-8")
    ran = loadscope("trace", model, "--engine", "native", "-o", tmp_path)
    assert (ran.exit_code, len(ran.error_lines)) == (2, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_session_of_a_newer_schema_is_refused_with_what_to_do(loadscope, tmp_path):
    (tmp_path / "streams").mkdir()
    (tmp_path / "session.json").write_text(json.dumps({"schema": 99}), encoding="utf-8")
    for verb in (["diagnose", tmp_path], ["export", tmp_path, "--format", "jsonl"], ["open", tmp_path]):
        ran = loadscope(*verb)
        assert (ran.exit_code, len(ran.error_lines)) == (5, 2)
        assert "99" in ran.error_lines[0]


def test_a_cache_folder_that_cannot_be_written_is_named(loadscope, tmp_path):
    (tmp_path / "cache").write_text("a file where a folder must be", encoding="utf-8")
    ran = loadscope("demo", "--json", XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert (ran.exit_code, len(ran.error_lines)) == (2, 2)
    assert "XDG_CACHE_HOME" in ran.error_lines[1]
