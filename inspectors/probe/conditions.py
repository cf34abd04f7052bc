"""The breakpoint language: `parameter ~ "*in_proj_ba*" and shard_id is tuple`, `exception`, `rank = 1`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from inspectors.probe.events import Body, SkipDecided, StageFailed

_TOKEN = re.compile(r"""\s*(?:(?P<text>"[^"]*"|'[^']*')|(?P<sign>!=|<=|>=|[=~<>()])|(?P<word>[^\s=~<>()!"']+))""")
_SIGNS: dict[str, Callable[[Any, Any], Any]] = {
    "=": lambda a, b: a == b, "!=": lambda a, b: a != b, "<": lambda a, b: a < b, ">": lambda a, b: a > b,
    "<=": lambda a, b: a <= b, ">=": lambda a, b: a >= b,
}  # fmt: skip
_ALIASES = {"tensor": "checkpoint_name", "name": "checkpoint_name"}

Test = Callable[["Facts"], bool]


class ConditionError(ValueError):
    """A breakpoint that cannot be read; the message names the place and what could stand there."""


@dataclass(frozen=True)
class Facts:
    """What a condition is asked about: an event's body and its rank."""

    body: Body
    rank: int

    def value(self, name: str) -> Any:
        """A field of the body by its name or alias, `kind`, `stage` or `rank`; None when the kind has none such."""
        if name == "rank":
            return self.rank
        value = getattr(self.body, name, None)
        return getattr(self.body, _ALIASES.get(name, name), None) if value is None else value


@dataclass(frozen=True)
class Condition:
    """One readable condition; `text` is what was typed."""

    text: str
    test: Test

    def holds(self, body: Body, rank: int) -> bool:
        """True when the event is one to stop at."""
        return self.test(Facts(body, rank))


def parse(text: str) -> Condition:
    """Read one condition; raises ConditionError."""
    reader = _Reader(text)
    test = reader.alternatives()
    if reader.here < len(reader.tokens):
        raise reader.error("'and', 'or' or the end")
    return Condition(text, test)


class _Reader:
    """Reads tokens from left to right: or, and, not, then one comparison or a word."""

    def __init__(self, text: str) -> None:
        self.text, self.here = text, 0
        self.tokens: list[tuple[str, str]] = []
        place = 0
        while place < len(text.rstrip()):
            match = _TOKEN.match(text, place)
            if match is None:
                raise ConditionError(f"{text!r} cannot be read from character {place + 1} on: a quote is not closed")
            self.tokens.append((match.lastgroup or "", match[match.lastgroup or 0]))
            place = match.end()

    def error(self, wanted: str) -> ConditionError:
        found = repr(self.tokens[self.here][1]) if self.here < len(self.tokens) else "the end"
        return ConditionError(f"{self.text!r}: expected {wanted}, found {found}")

    def takes(self, *texts: str) -> str:
        """The next token if it is one of `texts`, else ""."""
        if self.here < len(self.tokens) and self.tokens[self.here][1] in texts and self.tokens[self.here][0] != "text":
            self.here += 1
            return self.tokens[self.here - 1][1]
        return ""

    def alternatives(self) -> Test:
        tests = [self.conjunction()]
        while self.takes("or"):
            tests.append(self.conjunction())
        return lambda facts: any(test(facts) for test in tests)

    def conjunction(self) -> Test:
        tests = [self.single()]
        while self.takes("and"):
            tests.append(self.single())
        return lambda facts: all(test(facts) for test in tests)

    def single(self) -> Test:
        if self.takes("not"):
            test = self.single()
            return lambda facts: not test(facts)
        if self.takes("("):
            test = self.alternatives()
            if not self.takes(")"):
                raise self.error("')'")
            return test
        return self.comparison()

    def comparison(self) -> Test:
        if self.here >= len(self.tokens) or self.tokens[self.here][0] != "word":
            raise self.error("a field or one of exception, decision, nan")
        name = self.tokens[self.here][1]
        self.here += 1
        if self.takes("is"):
            return _kind_test(name, self._value().lower())
        if self.takes("~"):
            glob = self._value()
            return lambda facts: _matches(facts.value(name), glob)
        sign = self.takes(*_SIGNS)
        if sign:
            return _sign_test(name, sign, self._value())
        if name not in _WORDS:
            raise ConditionError(f"{self.text!r}: {name!r} is no condition alone; known are {', '.join(_WORDS)}")
        return _WORDS[name]

    def _value(self) -> str:
        if self.here >= len(self.tokens) or self.tokens[self.here][0] == "sign":
            raise self.error("a value")
        kind, text = self.tokens[self.here]
        self.here += 1
        return text[1:-1] if kind == "text" else text


_WORDS: dict[str, Test] = {
    "exception": lambda facts: isinstance(facts.body, StageFailed),
    "decision": lambda facts: isinstance(facts.body, SkipDecided),
    "nan": lambda facts: bool(facts.value("nan_count")),
}


def _matches(value: Any, glob: str) -> bool:
    if isinstance(value, tuple):
        return any(_matches(one, glob) for one in value)
    return value is not None and fnmatchcase(str(value), glob)


def _kind_test(name: str, wanted: str) -> Test:
    if wanted == "tuple":
        return lambda facts: str(facts.value(name) or "").startswith("(")
    if wanted == "none":
        return lambda facts: facts.value(name) in {None, "", "None"}
    raise ConditionError(f"'{name} is {wanted}': after 'is' stands tuple or none")


def _sign_test(name: str, sign: str, wanted: str) -> Test:
    compare = _SIGNS[sign]

    def test(facts: Facts) -> bool:
        value = facts.value(name)
        if value is None:
            return False
        try:
            return bool(compare(float(value), float(wanted)))
        except (TypeError, ValueError):
            return bool(compare(str(value), wanted))

    return test
