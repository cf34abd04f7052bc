"""A kernel's grid is larger than the device takes, or will be for a longer prompt."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
    """A grid over a limit of its product; `tokens` are those of the forward pass, 0 where none is known."""

    kernel: str
    sizes: tuple[int, ...]
    limit: int
    tokens: int

    @property
    def product(self) -> int:
        return math.prod(self.sizes)

    @property
    def per_token(self) -> int:
        """How many programs a token adds; 0 where the grid does not grow with the tokens."""
        return self.product // self.tokens if self.tokens > 1 and self.tokens in self.sizes else 0

    @property
    def first_failing(self) -> int:
        """The shortest prompt that is too long, 0 where the grid does not grow with it."""
        return self.limit // self.per_token + 1 if self.per_token else 0

    @property
    def formula(self) -> str:
        rest = [size for size in self.sizes if size != self.tokens]
        return " × ".join(["tokens", *(f"{size:,}" for size in rest)]) if self.per_token else ""


def _judge(case: Case) -> Iterator[Finding]:
    for event, failure in case.failures:
        grid = _of_failure(case, event, failure)
        if grid is not None:
            yield _finding(case, grid, event, failure)
    if not case.failures:
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
    """Launches on a device that has a limit, whose grid will pass it within the longest prompt anybody gives."""
    launches = [row for row in case.session.rows("kernel.launched", ("name", "grid")) if row[7]]
    limit = _limit_of(case.session.manifest.device) if launches else None
    seen: set[str] = set()
    for row in launches if limit else ():
        if str(row[6]) in seen:
            continue
        event = case.session.event(row[0])
        tokens = next(
            (b.tokens for p in _enclosing(case, event) if isinstance(b := case.session.event(p).body, ForwardRan)), 0
        )
        grid = _Grid(str(row[6]), tuple(row[7]), limit or 0, tokens)
        if grid.product > grid.limit or 0 < grid.first_failing <= LONGEST_PROMPT:
            seen.add(grid.kernel)
            yield _finding(case, grid, event, None)


def _limit_of(device: str) -> int | None:
    """The most programs a launch may have on the device of that name; None without such a limit."""
    from backends.devices.errors import DeviceError
    from backends.devices.placement import device_named

    try:
        return device_named(device.partition(":")[0]).limits.max_grid_product
    except (DeviceError, ImportError):
        return None


def _finding(case: Case, grid: _Grid, event: Event, failure: StageFailed | None) -> Finding:
    is_over = grid.product > grid.limit
    shown = " × ".join(f"{size:,}" for size in grid.sizes)
    grows = f", {grid.formula}: it fails from {grid.first_failing:,} tokens on" if grid.first_failing else ""
    at = f" at a prefill of {grid.tokens:,} tokens" if grid.tokens > 1 else ""
    return Finding(
        class_=RULE.class_,
        severity="error" if is_over else "warning",
        title=f"{grid.kernel}: grid {grid.product:,} over {grid.limit:,}"
        if is_over
        else f"{grid.kernel}: grid over {grid.limit:,} from {grid.first_failing:,} tokens",
        sentence=(
            f"{grid.kernel} is launched on a grid of {shown} = {grid.product:,} programs{at}{grows}. "
            f"The device takes {grid.limit:,}."
        ),
        remedy=_remedy(grid),
        module=_module(event, failure),
        rank=event.rank if event.rank >= 0 else None,
        evidence=_evidence(case, grid, event, failure, shown),
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


def _evidence(case: Case, grid: _Grid, event: Event, failure: StageFailed | None, shown: str) -> tuple[Evidence, ...]:
    if failure is None:
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
