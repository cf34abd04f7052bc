"""A finding: one conclusion with its severity, its evidence and what to try."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from workbench.diagnosis.case import Case

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Evidence:
    """One reason. `position` is the event's place in the session (None: no event), `ref` its reference ("#44").

    `text` fits a line of a screen; `names` says in full what it is about. `screen` and `row` are the question that
    shows it best and what to select there, empty for the screen of the event's kind.
    """

    position: int | None
    what: str
    text: str
    ref: str = ""
    names: str = ""
    screen: str = ""
    row: str = ""

    def __str__(self) -> str:
        told = f"{self.ref} {self.what}: {self.text}".lstrip()
        return f"{told}: {self.names}" if self.names else told


@dataclass(frozen=True)
class Finding:
    """One conclusion. `seen` counts the places merged into it, `modules` names them; `root` is False for a follow-on.

    `steps` tell how it came about: (stage, text, tone) with the tones "plain", "warning", "error".
    """

    class_: str
    severity: Severity
    title: str
    sentence: str
    remedy: str
    module: str | None = None
    parameter: str | None = None
    tensor: str | None = None
    rank: int | None = None
    evidence: tuple[Evidence, ...] = ()
    steps: tuple[tuple[str, str, str], ...] = ()
    id: str = ""
    root: bool = True
    explains: tuple[str, ...] = ()
    seen: int = 1
    modules: tuple[str, ...] = ()

    def as_json(self) -> dict[str, object]:
        """The finding as `--json` prints it."""
        return {
            "id": self.id,
            "severity": self.severity,
            "class": self.class_,
            "title": self.title,
            "sentence": self.sentence,
            "module": self.module,
            "parameter": self.parameter,
            "tensor": self.tensor,
            "rank": self.rank,
            "root": self.root,
            "explains": list(self.explains),
            "evidence": [str(one) for one in self.evidence],
            "remedy": self.remedy,
            "seen": self.seen,
            "modules": list(self.modules),
        }


Judge = Callable[["Case"], Iterator[Finding]]


@dataclass(frozen=True)
class Rule:
    """One rule: `judge` yields its findings, of class `class_`, one for each place; the verdict merges them.

    `follows` are classes that explain a finding of this rule on the same module, `follows_anywhere` wherever they are.
    """

    class_: str
    judge: Judge
    follows: tuple[str, ...] = ()
    follows_anywhere: tuple[str, ...] = ()
