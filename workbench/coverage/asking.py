"""Parses what a person asks for: an element `NAME[i,j]`, bytes `FILE:START-END`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from workbench.errors import UserError

_ELEMENT = re.compile(r"^(?P<name>[^\[\]\s]+)(?:\[(?P<index>[^\[\]]*)\])?$")
_BYTES = re.compile(r"^(?P<file>.+):(?P<begin>\d[\d_,]*)(?:-(?P<end>\d[\d_,]*))?$")
_HOW_ELEMENT = "write NAME[i,j] with one whole number for each dimension, such as 'model.norm.weight[3]'"
_HOW_BYTES = "write FILE:START-END in bytes from the file's start, END excluded, such as model.safetensors:1024-1032"


@dataclass(frozen=True)
class AskedElement:
    """A parameter's name and the numbers in the brackets; `index` is None without brackets."""

    name: str
    index: tuple[int, ...] | None


@dataclass(frozen=True)
class AskedBytes:
    """A file's name and the bytes begin..end-1."""

    file: str
    begin: int
    end: int


def asked_element(text: str) -> AskedElement:
    """Parse `NAME[i,j]`. Raises UserError (exit 2) for other text and for slices."""
    found = _ELEMENT.match(text.strip())
    if found is None:
        raise UserError(f"{text!r} names no element of a parameter", _HOW_ELEMENT)
    if found["index"] is None:
        return AskedElement(found["name"], None)
    words = [word.strip() for word in found["index"].split(",")] if found["index"].strip() else []
    if words and not words[-1]:
        words.pop()  # as Python allows one comma at the end
    wrong = next((word for word in words if not re.fullmatch(r"[+-]?\d[\d_]*", word)), None)
    if wrong is not None:
        kind = "a slice, and an element is asked for" if ":" in wrong else "no whole number"
        raise UserError(f"{text!r}: {wrong!r} is {kind}", _HOW_ELEMENT)
    return AskedElement(found["name"], tuple(int(word) for word in words))


def is_bytes(text: str) -> bool:
    """True for a text that speaks of bytes of a file rather than of an element."""
    return _BYTES.match(text.strip()) is not None


def asked_bytes(text: str) -> AskedBytes:
    """Parse `FILE:START-END` or `FILE:START` for one byte. Raises UserError (exit 2)."""
    found = _BYTES.match(text.strip())
    if found is None:
        raise UserError(f"{text!r} names no bytes of a file", _HOW_BYTES)
    begin, end = (int(re.sub(r"[,_]", "", given)) if given else None for given in (found["begin"], found["end"]))
    first = begin or 0
    last = first + 1 if end is None else end
    if last <= first:
        raise UserError(f"{text!r}: byte {last:,} does not come after byte {first:,}", _HOW_BYTES)
    return AskedBytes(found["file"], first, last)


def named(name: str, known: Sequence[str], what: str, whose: str) -> str:
    """`name` if it is one of `known`. Raises UserError (exit 2) that tells the nearest one."""
    if name in known:
        return name
    found = nearest(name, known)
    try_ = f"did you mean {found}?" if found else f"see the {what}s there are with loadscope coverage --all"
    raise UserError(f"{whose} has no {what} {name!r}", try_)


def nearest(name: str, known: Sequence[str]) -> str:
    """The name most like one that is not known, else one with the same end, else ""."""
    end = name.rpartition(".")[2]
    found = difflib.get_close_matches(name, known, 1, 0.4) or [one for one in known if one.endswith(end)]
    return found[0] if found else ""


def placed(asked: AskedElement, shape: Sequence[int], text: str) -> tuple[int, ...]:
    """The index inside `shape`, negative numbers counted from the end. Raises UserError (exit 2) when there is none."""
    sizes = "[" + ", ".join(map(str, shape)) + "]"
    given = asked.index if asked.index is not None else (0,) * len(shape) if all(n == 1 for n in shape) else ()
    if len(given) != len(shape):
        numbers = f"{len(given)} number{'' if len(given) == 1 else 's'}"
        raise UserError(
            f"{text!r} gives {numbers} for {asked.name} of shape {sizes}",
            f"give one number for each of its {len(shape)} dimensions"
            if shape
            else f"write {asked.name} or [] after it",
        )
    for dim, (i, n) in enumerate(zip(given, shape, strict=True)):
        if not -n <= i < n:
            what = f"{asked.name} has shape {sizes}: {i} is out of range in dimension {dim}"
            raise UserError(what, f"give a number from {-n} to {n - 1} there" if n else "it has no elements")
    return tuple(i + n if i < 0 else i for i, n in zip(given, shape, strict=True))
