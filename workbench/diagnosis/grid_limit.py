"""A kernel's grid is larger than the device takes, or will be for a longer prompt."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from backends.devices.limits import LaunchLimits
from inspectors.probe.events import ForwardRan, KernelLaunched, StageFailed
from sessions.event import Event
from workbench.diagnosis.case import Case, first_line, leaf
from workbench.diagnosis.finding import Evidence, Finding, Rule

UINT16_MAX = 65535
LONGEST_PROMPT = 1 << 20
_GRID = re.compile(r"grid\D{0,12}?\(?((?:\d+\s*,\s*)*\d+)", re.IGNORECASE)
_KERNEL = re.compile(r"kernel\s+([A-Za-z_]\w*)")
_CORE_DIM = re.compile(r"core_?dim\D*(\d+)", re.IGNORECASE)
_LIMIT = re.compile(r"limit of ([\d,]+)|greater than (?:UINT16_MAX|([\d,]+))", re.IGNORECASE)


@dataclass(frozen=True)
class _Grid:
    """A grid beside a limit of its product, or of its dimension `dimension` (-1: the product).

    `tokens` are those of the forward pass, 0 where none is known; `device` is whose limit it is.
    """

    kernel: str
    sizes: tuple[int, ...]
    limit: int
    tokens: int
    dimension: int = -1
    device: str = "The device"

    @property
    def limited(self) -> tuple[int, ...]:
        """The sizes whose product the limit is for."""
        return self.sizes if self.dimension < 0 else self.sizes[self.dimension : self.dimension + 1]

    @property
    def product(self) -> int:
        return math.prod(self.limited)

    @property
    def per_token(self) -> int:
        """How many programs a token adds; 0 where the grid does not grow with the tokens."""
        return self.product // self.tokens if self.tokens > 1 and self.tokens in self.limited else 0

    @property
    def first_failing(self) -> int:
        """The shortest prompt that is too long, 0 where the grid does not grow with it."""
        return self.limit // self.per_token + 1 if self.per_token else 0

    @property
    def formula(self) -> str:
        rest = [size for size in self.limited if size != self.tokens]
        return " × ".join(["tokens", *(f"{size:,}" for size in rest)]) if self.per_token else ""

    @property
    def shown(self) -> str:
        """The grid, and the number that the limit is for."""
        whole = " × ".join(f"{size:,}" for size in self.sizes)
        if self.dimension >= 0:
            return f"{whole}, in dimension {self.dimension} {self.product:,} programs"
        return f"{whole} = {self.product:,} programs"


def _judge(case: Case) -> Iterator[Finding]:
    for event, failure in case.failures:
        grid = _of_failure(case, event, failure)
        if grid is not None:
            yield _finding(case, grid, event, failure)
    if case.asked_limits or not case.failures:
        yield from _predicted(case)


def _of_failure(case: Case, event: Event, failure: StageFailed) -> _Grid | None:
    limit, core_dim, grid = (one.search(failure.message) for one in (_LIMIT, _CORE_DIM, _GRID))
    sizes = core_dim.group(1) if core_dim else grid.group(1) if grid else ""
    if not sizes or limit is None:
        return None
    most = next((int(one.replace(",", "")) for one in limit.groups() if one), UINT16_MAX)
    kernel = _KERNEL.search(failure.message)
    name = kernel.group(1) if kernel else leaf(failure.module) or "a kernel"
    numbers = tuple(int(one) for one in re.findall(r"\d+", sizes))
    return _Grid(name, numbers, most, _tokens(case, event, failure))


def _tokens(case: Case, event: Event, failure: StageFailed) -> int:
    call = case.session.position(event.stream, failure.call) if failure.call else event.position
    for position in (call, *_enclosing(case, event)):
        body = case.session.event(position).body if 0 <= position < len(case.session) else None
        if isinstance(body, ForwardRan):
            return body.tokens
    return 0


def _enclosing(case: Case, event: Event) -> Iterator[int]:
    while event.parent:
        position = case.session.position(event.stream, event.parent)
        yield position
        event = case.session.event(position)


def _predicted(case: Case) -> Iterator[Finding]:
    """Launches whose grid a device would not take, or not within the longest prompt anybody gives."""
    launches = [row for row in case.session.rows("kernel.launched", ("name", "grid")) if row[7]]
    limits = case.limits if launches else None
    judged: set[tuple[str, tuple[int, ...], int]] = set()
    told: set[str] = set()
    for position, *_, name, grid in launches if limits is not None else ():
        event = case.session.event(position)
        tokens = next(
            (b.tokens for p in _enclosing(case, event) if isinstance(b := case.session.event(p).body, ForwardRan)), 0
        )
        key = (str(name), tuple(grid), tokens)
        if key in judged or name in told or limits is None:
            continue
        judged.add(key)
        for one in _beside(limits, *key):
            if name not in told and (one.product > one.limit or 0 < one.first_failing <= LONGEST_PROMPT):
                told.add(name)
                yield _finding(case, one, event, None)
        if not math.prod(grid) and not limits.allows_empty_grid:
            told.add(name)
            yield _empty(case, key[0], key[1], limits, event)


def _beside(limits: LaunchLimits, kernel: str, sizes: tuple[int, ...], tokens: int) -> Iterator[_Grid]:
    """A grid beside each limit there is, over it first."""
    found = [_Grid(kernel, sizes, n, tokens, d, limits.family) for d, n in enumerate(limits.max_grid[: len(sizes)])]
    if limits.max_grid_product is not None:
        found.append(_Grid(kernel, sizes, limits.max_grid_product, tokens, -1, limits.family))
    yield from sorted(found, key=lambda one: one.product <= one.limit)


def _empty(case: Case, kernel: str, sizes: tuple[int, ...], limits: LaunchLimits, event: Event) -> Finding:
    shown = " × ".join(f"{size:,}" for size in sizes)
    return Finding(
        class_=RULE.class_,
        severity="error",
        title=f"{kernel}: an empty grid",
        sentence=f"{kernel} is launched on a grid of {shown}, which is empty, and {limits.family} has no empty launch.",
        remedy=f"Launch {kernel} only where there is something to do.",
        module=_module(event, None),
        rank=event.rank if event.rank >= 0 else None,
        evidence=(case.evidence(event.position, "launch", f"{kernel} on a grid of {shown}"),),
    )


def _finding(case: Case, grid: _Grid, event: Event, failure: StageFailed | None) -> Finding:
    is_over = grid.product > grid.limit
    grows = f", {grid.formula}: it fails from {grid.first_failing:,} tokens on" if grid.first_failing else ""
    at = f" at a prefill of {grid.tokens:,} tokens" if grid.tokens > 1 else ""
    return Finding(
        class_=RULE.class_,
        severity="error" if is_over else "warning",
        title=f"{grid.kernel}: grid {grid.product:,} over {grid.limit:,}"
        if is_over
        else f"{grid.kernel}: grid over {grid.limit:,} from {grid.first_failing:,} tokens",
        sentence=f"{grid.kernel} is launched on a grid of {grid.shown}{at}{grows}. {grid.device} takes {grid.limit:,}.",
        remedy=_remedy(grid),
        module=_module(event, failure),
        rank=event.rank if event.rank >= 0 else None,
        evidence=_evidence(case, grid, event, failure),
        steps=_steps(grid, failure),
    )


def _module(event: Event, failure: StageFailed | None) -> str | None:
    named = (
        failure.module if failure is not None else event.body.module if isinstance(event.body, KernelLaunched) else ""
    )
    return named or None


def _remedy(grid: _Grid) -> str:
    shorter = f", or prefill at most {grid.first_failing - 1:,} tokens at once" if grid.first_failing > 1 else ""
    return f"Take the device's own kernel, or launch {grid.kernel} in parts of {grid.limit:,} programs{shorter}."


def _evidence(case: Case, grid: _Grid, event: Event, failure: StageFailed | None) -> tuple[Evidence, ...]:
    if failure is None:
        shown = " × ".join(f"{size:,}" for size in grid.sizes)
        return (case.evidence(event.position, "launch", f"{grid.kernel} on a grid of {shown}"),)
    out = [case.evidence(event.position, "failed", first_line(failure), leaf(failure.error))]
    if failure.call:
        call = case.session.position(event.stream, failure.call)
        out.append(case.evidence(call, "forward", f"prefill of {grid.tokens:,} tokens" if grid.tokens else "this call"))
    if grid.formula:
        out.append(
            Evidence(None, "grid", f"{grid.formula} ≤ {grid.limit:,}: at most {grid.first_failing - 1:,} tokens")
        )
    return tuple(out)


def _steps(grid: _Grid, failure: StageFailed | None) -> tuple[tuple[str, str, str], ...]:
    steps: Sequence[tuple[str, str, str]] = (
        ("prefill", f"{grid.tokens:,} tokens" if grid.tokens else "a long prompt", "plain"),
        ("kernel", f"grid {grid.formula or grid.product}", "plain"),
        ("device", f"{grid.product:,} > {grid.limit:,}" if grid.product > grid.limit else f"{grid.limit:,}", "warning"),
    )
    return (*steps, ("host", leaf(failure.error), "error")) if failure is not None else tuple(steps)


RULE = Rule("kernel/grid-limit", _judge)
