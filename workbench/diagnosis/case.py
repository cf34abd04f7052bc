"""What the rules look at: the views of one session, each computed once and only when a rule asks for it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import zip_longest

from backends.devices.limits import LIMITS, LaunchLimits
from inspectors.probe.events import ModelLoaded, StageFailed, TensorListed
from sessions.checkpoint import Consumption, consumption, header
from sessions.decisions import DecisionView, built_names, decisions
from sessions.event import Event
from sessions.manifest import Outcome
from sessions.parameters import ParameterView, parameters
from sessions.session import Session
from workbench.diagnosis.finding import Evidence

_AFTER_LOADS = frozenset({"forward.run", "kernel.launch"})
_LAYER = re.compile(r"\.\d+(?=\.|$)")
_DIVISION = re.compile(
    r"(?:=|\bsize|\bdim\w*)?\s*(\d+)\)?\s+(?:is\s+)?not\s+(?:evenly\s+)?divisible\s+by\b[^0-9]*?(\d+)", re.IGNORECASE
)


class Case:
    """One session under judgement; `limits` names those of the device by which launches are judged, "" for its own."""

    def __init__(self, session: Session, limits: str = "") -> None:
        self.session = session
        self.asked_limits = limits or session.manifest.limits

    @cached_property
    def limits(self) -> LaunchLimits | None:
        """What a launch may be: as asked for, else as the session's device has it; None where neither is known."""
        if self.asked_limits:
            return LIMITS.get(self.asked_limits)
        from backends.devices.errors import DeviceError

        try:
            from backends.devices.placement import device_named

            return device_named(self.session.manifest.device.partition(":")[0]).limits
        except (DeviceError, ImportError):  # a foreign device, or a Python without torch
            return None

    @cached_property
    def decisions(self) -> tuple[DecisionView, ...]:
        """Why each module got its method, for each rank."""
        return decisions(self.session)

    @cached_property
    def parameters(self) -> tuple[ParameterView, ...]:
        """Every parameter of every rank, as of the end."""
        return parameters(self.session)

    @cached_property
    def header(self) -> Mapping[str, TensorListed]:
        """The checkpoint's tensors by name."""
        return header(self.session)

    @cached_property
    def consumption(self) -> tuple[Consumption, ...]:
        """What became of every checkpoint tensor."""
        return consumption(self.session)

    @cached_property
    def failures(self) -> tuple[tuple[Event, StageFailed], ...]:
        """The host's exceptions as they passed a tracepoint, in order."""
        events = self.session.of_kinds("stage.failed")
        return tuple((event, event.body) for event in events if isinstance(event.body, StageFailed))

    @cached_property
    def listed_at(self) -> Mapping[str, int]:
        """The position at which each checkpoint tensor was listed."""
        return {row[6]: row[0] for row in self.session.rows("tensor.listed", ("checkpoint_name",))}

    @cached_property
    def ranks_loaded(self) -> frozenset[int]:
        """The ranks whose load ended well."""
        return frozenset(view.rank for view in self.parameters if view.is_final)

    @property
    def outcome(self) -> Outcome | None:
        """How the host ended, None when nobody wrote it."""
        return self.session.manifest.outcome

    @property
    def has_failed(self) -> bool:
        """True when the host failed or was killed, or an exception passed a tracepoint."""
        is_bad = self.outcome is not None and self.outcome.state in {"failed", "killed"}
        return is_bad or bool(self.failures)

    @property
    def has_failed_loading(self) -> bool:
        """True when the host failed, but for exceptions that all came after the load: in forward passes."""
        is_later = all(failure.failed_stage in _AFTER_LOADS for _, failure in self.failures)
        return self.has_failed and not (self.failures and is_later)

    @property
    def is_whole(self) -> bool:
        """True when some rank's load ended well and none failed: then what is missing will stay missing.

        Of a process that was entered late it is known only where every parameter was made since then.
        """
        is_known = all(view.was_seen_made for view in self.parameters)
        return bool(self.ranks_loaded) and not self.has_failed_loading and is_known

    @cached_property
    def never_filled(self) -> Mapping[tuple[int, str], tuple[int, str]]:
        """What engines report as not filled, by (rank, parameter): the report's position, what they put there."""
        out: dict[tuple[int, str], tuple[int, str]] = {}
        for event in self.session.of_kinds("model.loaded"):
            if isinstance(event.body, ModelLoaded):
                told = zip_longest(event.body.never_filled, event.body.initialised, fillvalue="")
                out.update({(event.rank, name): (event.position, now) for name, now in told})
        return out

    @cached_property
    def initialising_ranks(self) -> frozenset[int]:
        """Ranks whose engine says what it put into parameters that the checkpoint has nothing for."""
        rows = self.session.rows("model.loaded", ("initialised",))
        return frozenset(row[5] for row in rows if row[6])

    def ref(self, position: int) -> str:
        """The reference of an event, for evidence."""
        return self.session.event(position).ref

    def evidence(
        self, position: int, what: str, text: str, names: str = "", *, screen: str = "", row: str = ""
    ) -> Evidence:
        """Evidence at an event; `screen` and `row` say where else it is seen best."""
        if not 0 <= position < len(self.session):
            return Evidence(None, what, text, names=names)
        return Evidence(position, what, text, self.ref(position), names, screen, row)

    def failure_of(self, module: str) -> tuple[Event, StageFailed] | None:
        """The first failure inside a module."""
        return next(((e, b) for e, b in self.failures if is_inside(self.built_name(b.module), module)), None)

    def built_name(self, module: str) -> str:
        """The name under which a module was built and decided on; the model may call it otherwise."""
        return self._built_names.get(module, module)

    @cached_property
    def _built_names(self) -> Mapping[str, str]:
        return built_names(self.session)

    @cached_property
    def declared_strings(self) -> frozenset[str]:
        """All texts of the checkpoint's own quantization config, such as the entries of its ignore list."""
        rows = self.session.rows("checkpoint.opened", ("quantization_config",))
        return frozenset(text for row in rows for text in _texts(_parsed(row[6])))


def _parsed(text: str | None) -> object:
    try:
        return json.loads(text or "null")
    except ValueError:
        return None


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)


def is_inside(name: str, module: str) -> bool:
    """True when a dotted name is the module or lies in it."""
    return bool(module) and (name == module or name.startswith(f"{module}."))


def is_divisibility(failure: StageFailed) -> bool:
    """True for a failure whose message says that a size does not divide."""
    return "divisible" in failure.message.lower()


def remainder(failure: StageFailed) -> tuple[int, int] | None:
    """The size and the block of a failed division, None when the message does not give both."""
    numbers = _DIVISION.search(failure.message)
    return (int(numbers.group(1)), int(numbers.group(2))) if numbers else None


def first_line(failure: StageFailed) -> str:
    """The first line of the host's own message."""
    return failure.message.partition("\n")[0]


def in_short(failure: StageFailed) -> str:
    """A failure in a few words: "8 % 128" for a division, else the first line of its message."""
    division = remainder(failure)
    return f"{division[0]:,} % {division[1]:,}" if division else first_line(failure)


def pattern(name: str | None) -> str:
    """A dotted name with its numbers (layers, experts) left out: what alike places have in common."""
    return _LAYER.sub(".*", name or "")


def leaf(name: str) -> str:
    """The last part of a dotted name."""
    return name.rpartition(".")[2]
