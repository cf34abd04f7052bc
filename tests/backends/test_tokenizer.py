"""Prompts and answers in words, for a checkpoint that has a tokenizer."""

from __future__ import annotations

import json
import shutil
import sys

import pytest

from backends.native.cli import main
from backends.native.config import end_token_ids
from backends.native.errors import TokenizerError
from backends.native.tokenizer import read_tokenizer

WORDS = ["one", "two", "three", "four"]


@pytest.fixture
def folder(tiny, tmp_path):
    """A tiny checkpoint whose tokenizer knows a word per token id."""
    tokenizers = pytest.importorskip("tokenizers")
    copy = shutil.copytree(tiny, tmp_path / "checkpoint")
    vocabulary = {word: token for token, word in enumerate(WORDS)} | {f"w{token}": token for token in range(4, 512)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="w511"))  # noqa: S106
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(copy / "tokenizer.json"))
    return copy


def test_a_prompt_in_words_gives_token_ids_and_words(folder, capsys):
    assert main([str(folder), "--prompt", "two three four", "--max-new-tokens", "3"]) == 0
    ids, words = capsys.readouterr().out.splitlines()
    assert main([str(folder), "--prompt-ids", "1,2,3", "--max-new-tokens", "3"]) == 0
    assert capsys.readouterr().out.splitlines() == [ids]
    assert words == read_tokenizer(folder).decode([int(token) for token in ids.split(",")])


def test_an_answer_in_words_ends_at_the_end_token(folder, capsys):
    run = [str(folder), "--prompt", "two three four", "--max-new-tokens", "3"]
    main(run)
    ids = capsys.readouterr().out.splitlines()[0].split(",")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [511, int(ids[1])]}))
    main(run)
    assert capsys.readouterr().out.splitlines()[0].split(",") == ids[:2]


@pytest.mark.parametrize(("generation", "expected"), [(None, (2,)), ({"eos_token_id": [7, 8]}, (7, 8)), ({}, (2,))])
def test_the_end_tokens_are_those_of_the_generation_config_else_of_the_config(folder, generation, expected):
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    assert end_token_ids(folder) == expected


def test_a_drawn_continuation_is_repeated_by_its_seed(folder, capsys):
    outputs = []
    for seed in ("1", "1", "2"):
        main([str(folder), "--temperature", "3", "--top-k", "100", "--top-p", "0.99", "--seed", seed])
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] != outputs[2]


def test_a_checkpoint_without_a_tokenizer_says_how_to_go_on(tiny):
    with pytest.raises(TokenizerError, match=r"holds no tokenizer.json.\n  try: give the prompt as token ids"):
        main([str(tiny), "--prompt", "two"])


def test_a_missing_library_says_how_to_go_on(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(TokenizerError, match="needs the library tokenizers, which is not installed"):
        read_tokenizer(folder)


def test_a_malformed_tokenizer_is_an_error_that_names_the_file(folder):
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(TokenizerError, match=r"tokenizer.json cannot be read"):
        read_tokenizer(folder)


def test_a_prompt_of_no_tokens_is_an_error(folder):
    with pytest.raises(TokenizerError, match="is no token long"):
        read_tokenizer(folder).encode(" ")


@pytest.mark.parametrize(
    "arguments", [["--prompt", "a", "--prompt-ids", "1"], ["--top-p", "0"], ["--temperature", "-1"]]
)
def test_wrong_usage_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["model", *arguments])
    assert caught.value.code == 2
    assert "usage: python -m backends.native" in capsys.readouterr().err
