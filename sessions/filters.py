"""The filter language of the screens and of breakpoints: one line of conditions on an event."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase

from inspectors.probe.events import KINDS
from sessions.errors import SessionError
from sessions.event import Event, UnknownBody

Test = Callable[[Event], bool]

_TOKEN = re.compile(r"""\s*(?:(?P<text>"[^"]*"|'[^']*')|(?P<op>!~|~|!=|<=|>=|=|<|>|\(|\))|(?P<word>[^\s()~!=<>"']+))""")
_ALIASES = {"tensor": "checkpoint_name", "dtype": "tensor_dtype", "shape": "tensor_shape", "shard": "shard_id"}
_ENVELOPE = frozenset({"kind", "stage", "rank", "seq", "position", "stream", "parent", "dur_ns", "t_ns"})
_NUMBERS = {"dur_ms": 1e6, "dur_us": 1e3}
_WORDS = {
    "exception": frozenset({"stage.failed"}),
    "decision": frozenset({"skip.decided", "method.selected"}),
    "kernel": frozenset({"kernel.launched"}),
    "split": frozenset({"shard.split"}),
}
_FIELDS = frozenset(f.name for body in KINDS.values() for f in fields(body))
_NAMES = sorted({*_ENVELOPE, *_NUMBERS, *_ALIASES, *_WORDS, *_FIELDS, "open"})
_BY_RANK = frozenset({"rank", "seq", "position", "dur_ns", "t_ns", *_NUMBERS, "start", "open", "exception", "outcome"})
EXAMPLE = 'Write e.g. parameter ~ "*in_proj_ba*" and rank = 1, or a text in quotes.'


class FilterError(SessionError):
    """A filter that cannot be understood; `position` is the character at which, from 0."""

    def __init__(self, what: str, try_: str, position: int) -> None:
        super().__init__(what, try_)
        self.position = position


@dataclass(frozen=True)
class Filter:
    """A condition. `kinds` are the only kinds that can match (None: any), `is_by_rank`: alike events may differ."""

    text: str
    matches: Test
    kinds: frozenset[str] | None = None
    is_by_rank: bool = False


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    position: int


def parse(text: str) -> Filter:
    """Read one line, e.g. `parameter ~ "*in_proj_ba*" and shard_id is tuple`. FilterError names the place."""
    parser = _Parser(text)
    found = parser.either()
    parser.end()
    return Filter(text, found[0], found[1], parser.is_by_rank)


Parsed = tuple[Test, "frozenset[str] | None"]


class _Parser:
    """Recursive descent: or, and, not, parentheses, one condition."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._at = 0
        self._length = len(text)
        self.is_by_rank = False

    def _peek(self) -> _Token:
        return self._tokens[self._at] if self._at < len(self._tokens) else _Token("end", "", self._length)

    def _take(self) -> _Token:
        token = self._peek()
        self._at += 1
        return token

    def _has_word(self, word: str) -> bool:
        token = self._peek()
        if token.kind == "word" and token.text == word:
            self._at += 1
            return True
        return False

    def end(self) -> None:
        token = self._peek()
        if token.kind != "end":
            raise FilterError(
                f"unexpected {token.text!r} at {token.position}", "Join conditions with and, or.", token.position
            )

    def either(self) -> Parsed:
        tests, kinds = _apart([self._both()])
        while self._has_word("or"):
            more = self._both()
            tests.append(more[0])
            kinds = None if kinds is None or more[1] is None else kinds | more[1]
        return (tests[0] if len(tests) == 1 else lambda e: any(t(e) for t in tests)), kinds

    def _both(self) -> Parsed:
        tests, kinds = _apart([self._one()])
        while self._has_word("and"):
            more = self._one()
            tests.append(more[0])
            kinds = more[1] if kinds is None else kinds if more[1] is None else kinds & more[1]
        return (tests[0] if len(tests) == 1 else lambda e: all(t(e) for t in tests)), kinds

    def _one(self) -> Parsed:
        if self._has_word("not"):
            test, _ = self._one()
            return (lambda e: not test(e)), None
        token = self._take()
        if token.text == "(" and token.kind == "op":
            found = self.either()
            if self._take().text != ")":
                raise FilterError(f"the bracket at {token.position} is never closed", "Add ).", token.position)
            return found
        if token.kind == "text":
            wanted = token.text.lower()
            return (lambda e: wanted in _searched(e)), None
        if token.kind != "word":
            raise FilterError(
                f"expected a condition at {token.position}, found {token.text or 'the end'!r}", EXAMPLE, token.position
            )
        return self._condition(token)

    def _condition(self, token: _Token) -> Parsed:
        name = token.text
        self.is_by_rank = self.is_by_rank or name in _BY_RANK
        if name in _WORDS:
            kinds = _WORDS[name]
            return (lambda e: e.kind in kinds), kinds
        if name == "open":
            return (lambda e: e.dur_ns is None), None
        if name not in _NAMES:
            raise FilterError(*_unknown(name, token.position))
        get = _getter(name)
        if self._has_word("is"):
            return self._kind_of_value(get)
        op = self._take()
        if op.kind != "op" or op.text in "()":
            raise FilterError(f"expected one of ~ = != < > is after {name!r} at {op.position}", EXAMPLE, op.position)
        value = self._take()
        if value.kind not in {"word", "text"}:
            raise FilterError(f"expected a value after {op.text!r} at {value.position}", EXAMPLE, value.position)
        test = _compared(get, op.text, value)
        is_exact_kind = name == "kind" and op.text == "=" and value.text in KINDS
        return test, frozenset({value.text}) if is_exact_kind else None

    def _kind_of_value(self, get: Callable[[Event], object]) -> Parsed:
        token = self._take()
        known = {"tuple": _is_tuple, "int": _is_int, "none": _is_none, "str": _is_text}
        if token.text.lower() not in known:
            raise FilterError(
                f"unknown type {token.text!r} at {token.position}", f"One of: {', '.join(known)}.", token.position
            )
        check = known[token.text.lower()]
        return (lambda e: get(e) is not None and check(get(e))), None


def _apart(parsed: list[Parsed]) -> tuple[list[Test], frozenset[str] | None]:
    return [parsed[0][0]], parsed[0][1]


def _tokens(text: str) -> list[_Token]:
    out, at = [], 0
    while text[at:].strip():
        found = _TOKEN.match(text, at)
        if found is None:
            place = at + len(text[at:]) - len(text[at:].lstrip())
            raise FilterError(f"cannot read {text[place]!r} at {place}", "Close the quotes; " + EXAMPLE, place)
        kind = str(found.lastgroup)
        word = found.group(kind)
        out.append(_Token(kind, word[1:-1] if kind == "text" else word, found.start(kind)))
        at = found.end()
    if not out:
        raise FilterError("an empty filter", EXAMPLE, 0)
    return out


def _unknown(name: str, position: int) -> tuple[str, str, int]:
    near = difflib.get_close_matches(name, _NAMES, 1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return f"unknown word {name!r} at {position}", f'{hint}Text to search for goes in quotes: "{name}".', position


def _getter(name: str) -> Callable[[Event], object]:
    field = _ALIASES.get(name, name)
    if name in _NUMBERS:
        scale = _NUMBERS[name]
        return lambda e: None if e.dur_ns is None else e.dur_ns / scale
    if field in _ENVELOPE:
        return lambda e: getattr(e, field)

    def get(event: Event) -> object:
        if isinstance(event.body, UnknownBody):
            return event.body.facts.get(field)
        return getattr(event.body, field, event.extra.get(field))

    return get


def _compared(get: Callable[[Event], object], op: str, value: _Token) -> Test:
    wanted = value.text
    number = _number(wanted)

    def holds(event: Event) -> bool:
        found = get(event)
        if found is None:
            return False
        if op in {"~", "!~"}:
            return _is_like(found, wanted) == (op == "~")
        if number is not None and isinstance(found, (int, float)):
            return _orders(float(found), op, number)
        if op in {"=", "!="}:
            return (_shown(found) == wanted) == (op == "=")
        return False

    return holds


def _orders(found: float, op: str, wanted: float) -> bool:
    return {
        "=": found == wanted, "!=": found != wanted, "<": found < wanted, ">": found > wanted,
        "<=": found <= wanted, ">=": found >= wanted,
    }[op]  # fmt: skip


def _is_like(found: object, pattern: str) -> bool:
    texts = [str(v) for v in found] if isinstance(found, tuple) else [_shown(found)]
    if not any(c in pattern for c in "*?["):
        return any(pattern.lower() in text.lower() for text in texts)
    return any(fnmatchcase(text, pattern) for text in texts)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    return text[1:-1] if text[:1] == "'" == text[-1:] and len(text) > 1 else text


def _number(text: str) -> float | None:
    try:
        return float(text.replace("_", ""))
    except ValueError:
        return None


def _searched(event: Event) -> str:
    facts = event.body.facts if isinstance(event.body, UnknownBody) else event.body.__dict__
    return " ".join([event.kind, *(str(v) for v in facts.values())]).lower()


def _is_tuple(value: object) -> bool:
    return isinstance(value, tuple) or str(value).startswith(("(", "["))


def _is_int(value: object) -> bool:
    return isinstance(value, int) or str(value).lstrip("-").isdigit()


def _is_none(value: object) -> bool:
    return str(value) in {"", "None"}


def _is_text(value: object) -> bool:
    return not (_is_tuple(value) or _is_int(value) or _is_none(value))
