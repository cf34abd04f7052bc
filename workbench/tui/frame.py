"""The lines around every screen: header, step bar and key line, from the snapshot and the host's state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from sessions.session import Session
from workbench.tui.keymap import Hint, Keymap, hint
from workbench.tui.paint import paint, said
from workbench.tui.snapshot import Snapshot
from workbench.tui.wording import count, duration

PAUSED = (
    hint("step.next"),
    hint("step.into"),
    hint("step.out"),
    hint("step.continue"),
    hint("step.breakpoint"),
    hint("inspect"),
)
HELD = (hint("step.frame_up"), hint("inspect"), hint("step.out_back"), hint("release"))
RUNNING = (hint("step.pause"), hint("step.breakpoint"), hint("release"))


@dataclass(frozen=True)
class Host:
    """What is known of a host that can be controlled. `state` is "running", "paused" or "gone", `at` a seq."""

    state: str = ""
    why: str = ""
    breakpoint: str = ""
    at: int = 0
    pid: int = 0
    is_busy: bool = False

    @property
    def is_paused(self) -> bool:
        """True while the host waits for a key."""
        return self.state == "paused"

    @property
    def is_held(self) -> bool:
        """True while the host waits at an exception."""
        return self.is_paused and self.why.startswith("exception")


def position_of(host: Host, session: Session) -> int | None:
    """The position at which a paused host stands; None when it is not paused or that is not recorded yet."""
    if not host.is_paused:
        return None
    mine = [one.number for one in session.streams if one.path.name.startswith(f"{host.pid}-")]
    position = session.position(mine[0] if mine else 0, host.at)
    return position if position >= 0 else None


def header_left(snapshot: Snapshot) -> Text:
    """Name, format, tp and engine."""
    loaded, judgement = snapshot.loaded, snapshot.judgement
    told = " · ".join(one for one in loaded.facts if one != "cpu")
    if judgement is not None:
        comparison = judgement.comparison
        told += f"  against {comparison.reference.differing(comparison.candidate)}"
    return paint("{A|◆} {b|$}  {m|$}", loaded.name or "session", told)


def state(snapshot: Snapshot, host: Host) -> Text:
    """The state of the session in one or two words."""
    if host.is_held:
        return said("✗ held", "e")
    if host.is_paused:
        return said("‖ paused", "a")
    outcome = snapshot.manifest.outcome
    if outcome is not None and outcome.state in {"failed", "killed", "interrupted"}:
        return said(f"✗ {outcome.state}", "e")
    if snapshot.is_live:
        return said("● live", "a")
    if snapshot.damage or outcome is None or outcome.state == "running":
        return said("▲ incomplete", "w")
    return said("recorded", "m")


def playing(speed: int) -> Text:
    """While the recording plays."""
    return said(f"▷ {speed:,} events/s", "a")


def position(snapshot: Snapshot, read: int) -> Text:
    """Where `now` is: tensors read while a load goes on, else duration and event."""
    last, at = snapshot.count, snapshot.now + 1
    if snapshot.is_live:
        tensors = f"{read:,} of {snapshot.checkpoint_tensors:,} tensors   " if snapshot.checkpoint_tensors else ""
        return said(f"{tensors}#{at:,}", "m")
    outcome = snapshot.manifest.outcome
    took = duration(int(outcome.duration_s * 1e9)) + "   " if outcome is not None and outcome.duration_s else ""
    return said(f"{took}#{count(at)} of {count(last)}", "m")


def step_bar(host: Host, breakpoints: Sequence[str], keymap: Keymap) -> tuple[Text, Text]:
    """Left: the pill and why the host stands; right: the keys that move it."""
    if host.is_held:
        return paint("{X| ✗ held }  {b|host waits at the exception}"), keymap.line(HELD, role="m")
    if host.is_paused:
        return _paused(host, breakpoints), keymap.line(PAUSED, role="m")
    if host.state == "gone":
        return paint("{X| host ended }  {m|stepping moves now in what was recorded}"), Text()
    busy = "the host runs until a breakpoint" if host.is_busy else "the host runs"
    return paint("{P| ● live }  {m|$}", busy), keymap.line(RUNNING, role="m")


def _paused(host: Host, breakpoints: Sequence[str]) -> Text:
    pill = paint("{P| ‖ paused }")
    if not host.why.startswith("breakpoint"):
        said_why = {"start": "at the first call", "step": "after a step"}.get(host.why, host.why)
        return Text.assemble(pill, "  ", said(said_why, "m"))
    text = host.breakpoint or (breakpoints[0] if breakpoints else "")
    head, _, glob = text.partition(" ~ ")
    what = paint("{m|$ ~} {t|$}", head, glob) if glob else said(text, "m")
    return Text.assemble(pill, "  ", said(host.why, "b"), "  ", what)


def key_line(hints: Sequence[Hint], keymap: Keymap, width: int) -> Text:
    """As many hints as have room, `?` always the last."""
    helps = [one for one in hints if one.ids == ("help",)] or [hint("help")]
    chosen = [one for one in hints if one.ids != ("help",)]
    while chosen and keymap.line([*chosen, *helps]).cell_len > width:
        chosen.pop()
    return keymap.line([*chosen, *helps])
