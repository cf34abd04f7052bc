"""Parameters as a tree of layers, modules and leaves, with the coverage of what each row holds."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sessions.parameters import ParameterView
from workbench.tui.marks import WORST_COVERAGE, worst

CELLS = 14


@dataclass
class Branch:
    """A module: what it holds directly, and the modules below it. `kept` is what was worked out of these."""

    path: str
    name: str
    above: Branch | None = field(default=None, repr=False)
    branches: dict[str, Branch] = field(default_factory=dict)
    leaves: dict[str, list[ParameterView]] = field(default_factory=dict)
    kept: dict[Hashable, Any] = field(default_factory=dict)

    @property
    def held(self) -> tuple[tuple[ParameterView, ...], ...]:
        """Every parameter below it, the views of its ranks together."""
        if "held" not in self.kept:
            self.kept["held"] = tuple(_held(self))
        return self.kept["held"]  # type: ignore[no-any-return]

    def forget(self) -> None:
        """What was worked out here and above is no longer so."""
        branch: Branch | None = self
        while branch is not None:
            branch.kept.clear()
            branch = branch.above


@dataclass(frozen=True)
class Row:
    """One line: a branch, or a parameter with the views of the ranks that are looked at."""

    depth: int
    path: str
    name: str
    held: tuple[tuple[ParameterView, ...], ...]
    is_branch: bool = False
    is_open: bool = False
    branch: Branch | None = field(default=None, compare=False, repr=False)

    @property
    def one(self) -> ParameterView:
        """The first rank's view of the first parameter."""
        return self.held[0][0]


def grown(parameters: Sequence[ParameterView]) -> Branch:
    """The tree of dotted names; `layers` and its number are one step, ranks of a parameter share a leaf."""
    return Tree().grown(parameters)


class Tree:
    """A tree that is asked for again as `now` moves: only what holds another view than before is worked out anew."""

    def __init__(self) -> None:
        self._views: list[ParameterView] = []
        self._places: list[tuple[Branch, list[ParameterView], int]] = []
        self._root = Branch("", "")

    def grown(self, parameters: Sequence[ParameterView]) -> Branch:
        """The tree of these parameters."""
        is_alike = len(parameters) == len(self._views)
        changed = [n for n, (a, b) in enumerate(zip(self._views, parameters, strict=False)) if a is not b]
        if not is_alike or any((self._views[n].name, self._views[n].rank) != _who(parameters[n]) for n in changed):
            self._root, self._places = Branch("", ""), []
            self._places = [self._planted(one) for one in parameters]
        else:
            for n in changed:
                branch, views, place = self._places[n]
                views[place] = parameters[n]
                branch.forget()
        self._views = list(parameters)
        return self._root

    def _planted(self, one: ParameterView) -> tuple[Branch, list[ParameterView], int]:
        branch = self._root
        parts = _steps(one.name)
        for part in parts[:-1]:
            below = branch.branches.get(part)
            if below is None:
                path = f"{branch.path}.{part}" if branch.path else part
                below = branch.branches[part] = Branch(path, part, branch)
            branch = below
        views = branch.leaves.setdefault(parts[-1], [])
        views.append(one)
        return branch, views, len(views) - 1


def _who(one: ParameterView) -> tuple[str, int]:
    return one.name, one.rank


def _steps(name: str) -> list[str]:
    steps: list[str] = []
    for part in name.split("."):
        if part.isdigit() and steps:
            steps[-1] += f".{part}"
        else:
            steps.append(part)
    return steps


def listed(branch: Branch, folds: frozenset[Hashable], depth: int = 0) -> Iterator[Row]:
    """The rows in view; a module with one parameter and nothing below it is one row."""
    for name, views in branch.leaves.items():
        yield Row(depth, f"{branch.path}.{name}" if branch.path else name, name, (tuple(views),))
    for name, below in branch.branches.items():
        if not below.branches and len(below.leaves) == 1:
            leaf, views = next(iter(below.leaves.items()))
            yield Row(depth, f"{below.path}.{leaf}", f"{name}.{leaf}", (tuple(views),))
            continue
        is_open = (below.path in folds) != _opens(below)
        yield Row(depth, below.path, name, below.held, is_branch=True, is_open=is_open, branch=below)
        if is_open:
            yield from listed(below, folds, depth + 1)


def _opens(branch: Branch) -> bool:
    """A numbered layer after the first stays folded until it is asked for."""
    number = branch.name.rpartition(".")[2]
    return not number.isdigit() or number == "0"


def _held(branch: Branch) -> Iterator[tuple[ParameterView, ...]]:
    for views in branch.leaves.values():
        yield tuple(views)
    for below in branch.branches.values():
        yield from below.held


CellsOf = Callable[[ParameterView, int], str]


def coverage_cells(row: Row, width: int = CELLS, cells_of: CellsOf = ParameterView.cells) -> str:
    """The coverage line of a row: ranks laid over each other; of a branch each parameter at its place."""
    if row.branch is None:
        return _laid_over(row.held, width, cells_of)
    key = ("cells", width, cells_of is ParameterView.cells)
    if key not in row.branch.kept:
        row.branch.kept[key] = _laid_over(row.held, width, cells_of)
    return row.branch.kept[key]  # type: ignore[no-any-return]


def _laid_over(held: Sequence[Sequence[ParameterView]], width: int, cells_of: CellsOf) -> str:
    lines = [_worst([cells_of(view, width) for view in views]) for views in held]
    if len(lines) == 1:
        return lines[0]
    return "".join(_cell(lines, at, width) for at in range(width))


def _worst(lines: Sequence[str]) -> str:
    """The ranks' lines as one; nearly always they are the same."""
    return lines[0] if lines.count(lines[0]) == len(lines) else worst(lines)


def _cell(lines: Sequence[str], at: int, width: int) -> str:
    first = at * len(lines) // width
    last = max(first + 1, -(-(at + 1) * len(lines) // width))
    if last - first > 1 or len(lines) >= width:
        return min("".join(lines[first:last]), key=WORST_COVERAGE.index)
    span = width / len(lines)
    inside = (at - first * span) / span
    return lines[first][min(width - 1, max(0, int(inside * width)))]
