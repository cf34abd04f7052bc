"""Says which of an engine's tracepoints an installed version has, from its sources: nothing is imported or run."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from inspectors.probe.tracepoint import Computed, Engine, Tracepoint

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Resolution:
    """One tracepoint in one version. `places` are `file:line` of the functions, `lacks` names mapped but not there."""

    tracepoint: Tracepoint
    is_expected: bool
    places: tuple[str, ...]
    lacks: tuple[str, ...]

    @property
    def is_fine(self) -> bool:
        """Whether it is there as the adapter says, or rightly absent."""
        return bool(self.places) and not self.lacks if self.is_expected else True


def survey(engine: Engine, folder: Path, version: str) -> tuple[Resolution, ...]:
    """Every tracepoint of `engine` against the package in `folder`, in the adapter's order."""
    sources = _Sources(folder, engine.module.split(".")[0])
    return tuple(_resolved(point, sources, version) for point in engine.tracepoints)


@dataclass
class _Sources:
    folder: Path
    package: str
    _parsed: dict[Path, ast.Module] = field(default_factory=dict)

    def home(self, pattern: str) -> Path:
        """The folder of the package that a module is in: the engine's, or another one installed beside it."""
        package = pattern.partition(".")[0]
        return self.folder if package == self.package else self.folder.with_name(package)

    def modules(self, pattern: str) -> Iterator[Path]:
        """The files of a module, or of every module directly in a package for `package.*`."""
        *inner, last = pattern.split(".")[1:]
        place = self.home(pattern).joinpath(*inner)
        if last == "*":
            yield from sorted(place.glob("*.py"))
            yield from sorted(place.glob("*/__init__.py"))
            return
        yield from (path for path in (place / f"{last}.py", place / last / "__init__.py") if path.is_file())

    def all(self, word: str) -> Iterator[Path]:
        """Every file of the package that has a word."""
        yield from (path for path in sorted(self.folder.rglob("*.py")) if word in _text(path))

    def tree(self, path: Path) -> ast.Module:
        """The parsed file; empty for one that this Python cannot parse."""
        if path not in self._parsed:
            try:
                self._parsed[path] = ast.parse(_text(path))
            except SyntaxError:
                self._parsed[path] = ast.Module([], [])
        return self._parsed[path]


@cache
def _text(path: Path) -> str:
    return path.read_text("utf-8", errors="replace")


def _resolved(point: Tracepoint, sources: _Sources, version: str) -> Resolution:
    pattern, _, qualname = point.target.partition(":")
    *owner, name = qualname.split(".")
    found: list[tuple[Path, Function | None, int]] = []
    for path in sources.modules(pattern):
        if owner:
            found += [(path, method, method.lineno) for method in _methods(sources.tree(path), ".".join(owner), name)]
        else:
            found += [(path, function, line) for function, line in _functions(sources.tree(path), name)]
    if not found and owner and owner[-1].endswith("+"):
        found += _in_subclasses(pattern, owner[-1][:-1], name, sources)
    elif found and owner and owner[-1].endswith("+"):
        # which of them are subclasses is known only when they run; those that define the method are counted
        base = {(path, line) for path, _, line in found}
        found += [
            (path, method, method.lineno)
            for path in sources.all(f"def {name}(")
            for method in _methods(sources.tree(path), "*", name)
            if (path, method.lineno) not in base
        ]
    lacks = dict.fromkeys(missing for _, function, _ in found[:1] if function for missing in _lacks(point, function))
    home = sources.home(pattern)
    places = tuple(
        f"{path.relative_to(home if home in path.parents else sources.folder)}:{line}" for path, _, line in found
    )
    is_expected = point.is_expected(version) and home.is_dir()  # another package need not be installed
    return Resolution(point, is_expected, places, tuple(lacks))


def _in_subclasses(pattern: str, owner: str, name: str, sources: _Sources) -> Iterator[tuple[Path, None, int]]:
    """A method that only subclasses of a class have: files that define one of its name, told without parsing them."""
    trees = [sources.tree(path) for path in sources.modules(pattern)]
    if any(isinstance(node, ast.ClassDef) and node.name == owner for tree in trees for node in _top(tree.body)):
        word = f"def {name}("
        for path in sources.all(word):
            yield path, None, _text(path).partition(word)[0].count("\n") + 1


def _functions(tree: ast.Module, name: str) -> Iterator[tuple[Function | None, int]]:
    """Definitions of a function at the top of a module, under conditions too; an import of that name counts."""
    for node in _top(tree.body):
        if isinstance(node, Function) and node.name == name:
            yield node, node.lineno
        elif isinstance(node, ast.ImportFrom) and any((alias.asname or alias.name) == name for alias in node.names):
            yield None, node.lineno


def _methods(tree: ast.Module, owner: str, name: str) -> Iterator[Function]:
    """Methods of a class `C` or `C+`, of every class for `*`, of those that have `other` too for `*[other]`."""
    for cls in _top(tree.body):
        if not isinstance(cls, ast.ClassDef):
            continue
        own = {node.name: node for node in _top(cls.body) if isinstance(node, Function)}
        is_meant = (not owner[1:] or owner[1:].strip("[]") in own) if owner[0] == "*" else cls.name == owner.rstrip("+")
        if is_meant and name in own:
            yield own[name]


def _top(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        yield node
        for block in ("body", "orelse", "handlers", "finalbody"):
            if isinstance(node, (ast.If, ast.Try, ast.With)):
                for inner in getattr(node, block, ()):
                    yield from _top(inner.body if isinstance(inner, ast.ExceptHandler) else [inner])


def _lacks(point: Tracepoint, function: Function) -> Iterator[str]:
    """Places which the adapter reads and the function does not have."""
    arguments = function.args
    given = {one.arg for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}
    made = {node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    for source in point.arguments.values():
        for place in source.places if isinstance(source, Computed) else (source,):
            head = place.split(".")[0]
            is_there = head.removeprefix("local:") in made if head.startswith("local:") else head in {*given, "result"}
            is_keyword = arguments.kwarg is not None and not head.startswith("local:")  # it takes any
            if not is_there and not is_keyword:
                yield head
