"""The tokenizer of a checkpoint, for prompts and answers in words; needs the library tokenizers, and only here."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backends.native.errors import TokenizerError

FILE_NAME = "tokenizer.json"


class Tokenizer:
    """Text to token ids and back."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def encode(self, text: str) -> list[int]:
        """Token ids of a prompt, with the special tokens that the tokenizer itself adds; at least one."""
        ids = list(self._backend.encode(text).ids)
        if not ids:
            raise TokenizerError(f"the prompt {text!r} is no token long.", "give a prompt of at least one word")
        return ids

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of token ids, special tokens left out."""
        return str(self._backend.decode(list(token_ids)))


def read_tokenizer(folder: str | Path) -> Tokenizer:
    """Read tokenizer.json of a checkpoint; raises TokenizerError where it, or the library that reads it, is missing."""
    path = Path(folder) / FILE_NAME
    if not path.is_file():
        raise TokenizerError(f"{folder} holds no {FILE_NAME}.", "give the prompt as token ids, with --prompt-ids")
    try:
        library = importlib.import_module("tokenizers")
    except ImportError as error:
        raise TokenizerError(
            f"reading {path} needs the library tokenizers, which is not installed.",
            "install it (pip install tokenizers), or give the prompt as token ids, with --prompt-ids",
        ) from error
    try:
        return Tokenizer(library.Tokenizer.from_file(str(path)))
    except Exception as error:  # the library raises bare Exception for a file it cannot read
        raise TokenizerError(f"{path} cannot be read: {error}.", "download that file again") from error
