"""What an engine adapter says about its host: where each stage can be seen, and under which argument names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Computed:
    """A value that an engine does not keep as such: `function` of the values at `places`, None for a missing one."""

    function: Callable[..., Any]
    places: tuple[str, ...]


@dataclass(frozen=True)
class Tracepoint:
    """One function of an engine where a stage can be seen.

    `target` is "module:qualname"; "module:Class+.method" means the method on Class and on every subclass that
    defines it, whenever that subclass is made. "package.*:*.method" means every class defined in any module directly in
    the package; "*[other].method" only those classes which define `other` too.
    `shows` is the event kind it leads to (several kinds can share a stage).
    `arguments` maps the inspectors' names for the call's values (listed in inspectors/README.md) to the engine's:
    a parameter of the function, "local:NAME" for a local variable at return, or "result"; ".NAME" and ".0" after it
    follow attributes and items, or a `Computed` of several of these. A name that is not mapped is looked for under
    itself.
    `since` and `before` bound the engine's versions which have the function: "0.5.11" means from that version on, and
    up to it; outside of them nobody misses it.
    """

    stage: str
    shows: str
    target: str
    arguments: Mapping[str, str | Computed] = field(default_factory=dict)
    since: str = ""
    before: str = ""

    def is_expected(self, version: str) -> bool:
        """Whether an engine of this version has the function; True for a version that says nothing."""
        is_new_enough = not self.since or not version or version_key(version) >= version_key(self.since)
        is_old_enough = not self.before or not version or version_key(version) < version_key(self.before)
        return is_new_enough and is_old_enough


@dataclass(frozen=True)
class Launch:
    """What the workbench asks an engine to do with one checkpoint; the adapter turns it into a command.

    `python` is the interpreter of the engine's own environment, empty for the workbench's; `rank` is "all" or a number.
    """

    model: str
    tp: int = 1
    device: str = "cpu"
    prompt_ids: tuple[int, ...] = ()
    max_new_tokens: int = 0
    extra: tuple[str, ...] = ()
    python: str = ""
    rank: str = "all"


@dataclass(frozen=True)
class Engine:
    """An engine adapter: the constant ENGINE of backends/engines/<name>.py, standard library only.

    `is_embedded` marks the engine that comes with Loadscope and is taken when nobody names one.
    `module` is the import that shows the engine is here; `rank` is the dotted "module:function" that gives the
    tensor-parallel rank of the calling thread or process, `tp_size` the one that gives the size of its group, empty
    where nobody says it; `command` is the argv that loads and runs a model.
    `has_harmless_words`: no word of its command line runs code or writes a file, so that a replay may repeat them.
    `takes_dtype`: its command line has the word `--dtype` for what is not quantized.
    `is_library`: other engines are built on it, and where one of them is at work too, that one knows the rank.
    `unwinding` are qualified names of exceptions that only end a rank after another one failed.
    """

    name: str
    module: str
    distribution: str
    rank: str
    tracepoints: tuple[Tracepoint, ...]
    command: Callable[[Launch], tuple[str, ...]]
    unwinding: tuple[str, ...] = ()
    is_embedded: bool = False
    has_harmless_words: bool = False
    takes_dtype: bool = False
    is_library: bool = False
    tp_size: str = ""


def version_key(version: str) -> tuple[int, ...]:
    """`0.5.10.post1` → (0, 5, 10): the leading numbers, enough to tell which functions an engine has."""
    numbers: list[int] = []
    for part in version.split("."):
        digits = re.match(r"\d+", part)
        if digits is None:
            break
        numbers.append(int(digits.group()))
        if digits.group() != part:
            break
    return tuple(numbers)
