"""Parameters as a tree of layers, modules and leaves, with the coverage of what each row holds."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field

from sessions.parameters import ParameterView
from workbench.tui.marks import WORST_COVERAGE, worst

CELLS = 14


@dataclass
class Branch:
    """A module: what it holds directly, and the modules below it."""

    path: str
    name: str
    branches: dict[str, Branch] = field(default_factory=dict)
    leaves: dict[str, list[ParameterView]] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One line: a branch, or a parameter with the views of the ranks that are looked at."""

    depth: int
    path: str
    name: str
    held: tuple[tuple[ParameterView, ...], ...]
    is_branch: bool = False
    is_open: bool = False

    @property
    def one(self) -> ParameterView:
        """The first rank's view of the first parameter."""
        return self.held[0][0]


def grown(parameters: Sequence[ParameterView]) -> Branch:
    """The tree of dotted names; `layers` and its number are one step, ranks of a parameter share a leaf."""
    root = Branch("", "")
    for one in parameters:
        parts = _steps(one.name)
        branch = root
        for part in parts[:-1]:
            path = f"{branch.path}.{part}" if branch.path else part
            branch = branch.branches.setdefault(part, Branch(path, part))
        branch.leaves.setdefault(parts[-1], []).append(one)
    return root


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
        yield Row(depth, below.path, name, tuple(_held(below)), is_branch=True, is_open=is_open)
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
        yield from _held(below)


CellsOf = Callable[[ParameterView, int], str]


def coverage_cells(row: Row, width: int = CELLS, cells_of: CellsOf = ParameterView.cells) -> str:
    """The coverage line of a row: ranks laid over each other; of a branch each parameter at its place."""
    lines = [worst([cells_of(view, width) for view in views]) for views in row.held]
    if len(lines) == 1:
        return lines[0]
    return "".join(_cell(lines, at, width) for at in range(width))


def _cell(lines: Sequence[str], at: int, width: int) -> str:
    first = at * len(lines) // width
    last = max(first + 1, -(-(at + 1) * len(lines) // width))
    if last - first > 1 or len(lines) >= width:
        return min("".join(lines[first:last]), key=WORST_COVERAGE.index)
    span = width / len(lines)
    inside = (at - first * span) / span
    return lines[first][min(width - 1, max(0, int(inside * width)))]
