"""An immutable picture of a session, folded by one thread; what the screens count and list comes from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from sessions.checkpoint import header
from sessions.decisions import DecisionView, decisions
from sessions.errors import SessionError
from sessions.liveness import is_running
from sessions.loaded import NOTHING, Loaded, loaded
from sessions.manifest import Manifest
from sessions.moments import moments, parameters_at
from sessions.parameters import ParameterView
from sessions.session import Session
from sessions.summary import Summary, summary
from sessions.timeline import Timeline
from workbench.diagnosis.finding import Finding
from workbench.diagnosis.verdict import findings
from workbench.errors import internal
from workbench.places import state_folder
from workbench.profile.profile import Profile
from workbench.tui.judgement import Judgement, judgement_of
from workbench.tui.kernelfold import Kernel, kernels_at
from workbench.tui.spinefold import spine_facts
from workbench.tui.views.tree import CELLS
from workbench.tui.widgets.spine import SpineFacts

T = TypeVar("T")
LARGE = 50_000
BUILD_SECONDS = 0.5


@dataclass(frozen=True)
class Fault:
    """A part of the workbench failed on this session: two lines for the pane concerned."""

    what: str
    try_: str


@dataclass(frozen=True)
class Snapshot:
    """What was folded. `now` is the position everything is shown as of, -1 while nothing is recorded.

    `is_pending`: only the timeline is there yet, everything else follows.
    """

    manifest: Manifest
    loaded: Loaded
    count: int = 0
    now: int = -1
    is_live: bool = False
    damage: tuple[str, ...] = ()
    log_count: int = 0
    findings: tuple[Finding, ...] = ()
    parameters: tuple[ParameterView, ...] = ()
    decisions: tuple[DecisionView, ...] = ()
    kernels: tuple[Kernel, ...] = ()
    timeline: Timeline | None = None
    checkpoint_tensors: int = 0
    summary: Summary | None = None
    costs: Profile | None = None
    judgement: Judgement | None = None
    spine: SpineFacts = field(default_factory=SpineFacts)
    faults: Mapping[str, Fault] = field(default_factory=dict)
    generation: int = 0
    is_pending: bool = False

    @property
    def is_indexed(self) -> bool:
        """True when every event is in a row of the timeline."""
        return self.timeline is None or self.timeline.is_built

    @property
    def unread(self) -> int:
        """How many errors there are among the root causes, or, without errors, warnings."""
        roots = [one for one in self.findings if one.root]
        errors = sum(one.severity == "error" for one in roots)
        return errors or sum(one.severity == "warning" for one in roots)


class Folding:
    """Folds one session again and again; a part that fails becomes a fault and the other parts go on."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._faults: dict[str, Fault] = {}
        self._generation = 0
        self._timeline: Timeline | None = None
        self._is_warm = False
        self._kept: dict[str, tuple[object, object]] = {}
        self._owes_costs = False

    @property
    def is_large(self) -> bool:
        """True when folding everything takes long enough to show the first rows before."""
        return len(self._session) > LARGE

    @property
    def is_done(self) -> bool:
        """True when the timeline holds every event, and nothing was put off to the next fold."""
        return (self._timeline is None or self._timeline.is_built) and not self._owes_costs

    def first(self) -> Snapshot:
        """The manifest and the first rows, before anything else is folded."""
        count = len(self._session)
        timeline = self._part("timeline", self._timed, None)
        told = self._part("loaded", lambda: loaded(self._session), NOTHING)
        return Snapshot(self._session.manifest, told, count, count - 1, timeline=timeline, is_pending=True)

    def fold(self, now: int | None) -> Snapshot:
        """The snapshot as of position `now`, or of the end."""
        session, self._faults = self._session, {}
        self._generation += 1
        count = len(session)
        at = count - 1 if now is None else max(-1, min(now, count - 1))
        until = None if at == count - 1 else at
        is_live = is_running(session)
        tensors = self._part("header", lambda: len(header(session)), 0)
        progress = session.count("tensor.read") / tensors if is_live and tensors else None
        none: tuple[Finding, ...] = ()
        found = self._part("findings", lambda: tuple(findings(session)), none)
        return Snapshot(
            manifest=session.manifest,
            loaded=self._part("loaded", lambda: loaded(session), NOTHING),
            count=count,
            now=at,
            is_live=is_live,
            damage=session.damage,
            log_count=session.log_count,
            findings=found,
            parameters=self._part("parameters", lambda: parameters_at(session, until), (), until),
            decisions=self._part("decisions", lambda: tuple(decisions(session)), ()),
            kernels=self._part("kernels", lambda: kernels_at(session, until), (), until),
            timeline=self._part("timeline", self._timed, None, self._generation),
            checkpoint_tensors=tensors,
            summary=self._part("summary", lambda: summary(session), None),
            costs=self._costs(),
            judgement=self._part("comparison", lambda: judgement_of(session), None),
            spine=self._part(
                "spine",
                lambda: spine_facts(session, self._timeline, found, at, progress),
                SpineFacts(),
                self._generation,
            ),
            faults=dict(self._faults),
            generation=self._generation,
        )

    def _costs(self) -> Profile | None:
        """Of a large session in a fold of their own: adding them up must not keep the other questions waiting."""
        kept = self._kept.get("costs")
        is_due = kept is None or kept[0] != (self._session.generation, None)
        if self.is_large and is_due and not self._owes_costs:
            self._owes_costs = True
            return kept[1] if kept is not None else None  # type: ignore[return-value]
        self._owes_costs = False
        return self._part("costs", lambda: Profile(self._session).prepared(), None)

    def warm(self, is_interrupted: Callable[[], bool]) -> None:
        """Draw ahead what moving through a recording shows; a fault of it comes back when it is really asked for."""
        if self._is_warm or is_running(self._session):
            return
        try:
            self._is_warm = moments(self._session).warm(CELLS, is_interrupted)
        except Exception as error:  # noqa: BLE001 - nobody has asked for it yet
            self._is_warm = True
            self._faults["moments"] = fault_of(error)

    def _timed(self) -> Timeline:
        if self._timeline is None:
            self._timeline = Timeline(self._session)
        else:
            self._timeline.refresh()
        self._timeline.build(seconds=BUILD_SECONDS)
        return self._timeline

    def _part(self, name: str, fold: Callable[[], T], otherwise: T, state: object = None) -> T:
        """What `fold` gives, computed once for each state of the session; `otherwise` when it fails."""
        key = (self._session.generation, state)
        kept = self._kept.get(name)
        if kept is not None and kept[0] == key:
            return kept[1]  # type: ignore[return-value]
        try:
            made = fold()
            self._kept[name] = (key, made)
            return made  # noqa: TRY300 - an else block would part the fold from its errors
        except SessionError as error:
            self._faults[name] = Fault(error.what, error.try_)
        except Exception as error:  # noqa: BLE001 - a fault of one part must not take the others off the screen
            self._faults[name] = fault_of(error)
        return otherwise


def fault_of(error: BaseException) -> Fault:
    """Two lines for the person; the traceback goes to a file in the state folder."""
    told = internal(error, state_folder() / "errors")
    return Fault(told.what, told.try_)
