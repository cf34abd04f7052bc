"""The probe in a host: routes calls at tracepoints to inspectors and keeps every fault of theirs from the host."""

from __future__ import annotations

import atexit
import importlib
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from inspectors.probe.call import Binding, Call
from inspectors.probe.events import NO_RANK, EngineFound, InspectorFaulted, RankJoined, TracepointMissing
from inspectors.probe.failures import error_name, stage_failed
from inspectors.probe.gate import Gate
from inspectors.probe.imports import ImportHooks
from inspectors.probe.inspector import Inspector
from inspectors.probe.layers import LayerNames
from inspectors.probe.patch import Site, UnresolvedError, replace_in_all
from inspectors.probe.recorder import Recorder
from inspectors.probe.settings import Settings
from inspectors.probe.stages import includes
from inspectors.probe.tensors import plain_tensors
from inspectors.probe.tracepoint import Engine, Tracepoint


class _ThreadState(threading.local):
    """What one host thread is doing: whether code of ours runs, which calls are open, which error was recorded."""

    def __init__(self) -> None:
        self.is_ours = False
        self.open_methods: set[tuple[int, int]] = set()
        self.open_calls = 0
        self.recorded_error: BaseException | None = None


_OF_A_RANK = frozenset({"method.select", "weights.create", "weight.map", "weight.load"})
"""Stages in which an engine's parallel groups are there: before them a rank may be the one of a process alone."""

_Route = tuple[tuple[Inspector, Callable[..., None]], ...]
"""Inspectors of a stage with their method for one verb, in the order in which they are told."""


class _Guard:
    """A block of code of ours; see `Probe.guarded`."""

    __slots__ = ("_inspector", "_plain", "_probe", "_state", "_was")

    def __init__(self, probe: Probe, state: _ThreadState, inspector: Inspector | None) -> None:
        self._probe, self._state, self._inspector = probe, state, inspector

    def __enter__(self) -> None:
        self._was, self._state.is_ours = self._state.is_ours, True
        self._plain = plain_tensors()
        if self._plain is not None:
            self._plain.__enter__()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if self._plain is not None:
            self._plain.__exit__(None, None, None)
        if isinstance(error, Exception):
            self._probe.fault(self._inspector, error)
        self._state.is_ours = self._was
        return isinstance(error, Exception)


class Probe:
    """One per process. Its methods never raise into the host."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.level = settings, settings.level
        self.recorder = Recorder(settings.folder, settings.level, settings.max_events)
        self.engines = settings.load_engines()
        self._rank_knowing = sorted(self.engines, key=lambda engine: engine.is_library)
        self.inspectors: list[Inspector] = []
        self.layers = LayerNames()
        self._found: list[EngineFound] = []
        self._versions: dict[str, str] = {}
        self.gate = Gate(self.recorder, settings, self.rank)
        self._routes: dict[tuple[str, str], _Route] = {}
        self._state = _ThreadState()
        self._ranks: dict[str, Callable[[], int]] = {}
        self._joined = {NO_RANK}
        # Deeper levels come later: on return they are told first, so that what they say lies inside the others' spans.
        for inspector in settings.load_inspectors(self._faulted):
            if includes(self.level, inspector.level):
                self.inspectors.append(inspector)
                with self.guarded(inspector):
                    inspector.start(self)
        self._unwinding = {name for engine in self.engines for name in engine.unwinding}
        self._sites = [Site(self, p, engine.name, engine.module) for engine in self.engines for p in engine.tracepoints]
        for point in (point for inspector in self.inspectors for point in inspector.tracepoints):
            library = point.target.partition(".")[0]
            self._sites.append(Site(self, point, library, library))

    def move_to(self, folder: Path) -> None:
        """Go on in another session: its stream begins with the engines that are here already."""
        self.settings = replace(self.settings, folder=folder)
        self.recorder.move_to(folder)
        self.gate.move_to(folder)
        self._joined = {NO_RANK}
        for found in self._found:
            self.recorder.point(found)

    # --- modules of the engines

    def watch_imports(self) -> None:
        """Set the import hooks, and the tracepoints in modules that are already there."""
        exact = [site.module_pattern for site in self._sites]
        hooks = ImportHooks([engine.module for engine in self.engines], exact, self.module_ready)
        sys.meta_path.insert(0, hooks)
        for name, module in list(sys.modules.items()):
            if isinstance(module, ModuleType) and hooks.covers(name):
                self.module_ready(name, module)
        atexit.register(self._report_modules_never_seen)

    def replace_everywhere(self) -> None:
        """Put the wrappers wherever a module of the host holds a function by name: it was imported before us."""
        replace_in_all(self._sites)

    @property
    def found(self) -> tuple[str, ...]:
        """The engines that were found, as "name version"."""
        return tuple(f"{one.engine} {one.version}".strip() for one in self._found)

    def module_ready(self, name: str, module: ModuleType) -> None:
        """An engine's module has run: set its tracepoints and note the engine."""
        try:
            for engine in self.engines:
                if engine.module == name:
                    self._engine_found(engine, module)
            for site in self._sites:
                if site.covers(name):
                    self._set(site, module)
                else:
                    site.replace_references(module)
        except Exception as error:
            self._say(f"tracepoints of {name} are incomplete: {type(error).__name__}: {error}")

    def _engine_found(self, engine: Engine, module: ModuleType) -> None:
        version = str(getattr(module, "__version__", "")) or _version(engine.distribution)
        file = str(getattr(module, "__file__", None) or "")
        self._versions[engine.name] = version
        found = EngineFound(engine=engine.name, version=version, module_file=file)
        self._found.append(found)
        self.recorder.point(found)
        self.gate.serve()

    def _set(self, site: Site, module: ModuleType) -> None:
        try:
            site.set_in(module)
        except UnresolvedError as error:
            self._missing(site, str(error))

    def _missing(self, site: Site, reason: str) -> None:
        point = site.tracepoint
        if not site.is_reported and point.is_expected(self._version_of(site.engine_name)):
            site.is_reported = True
            self.recorder.point(
                TracepointMissing(engine=site.engine_name, target=point.target, wanted_stage=point.stage, reason=reason)
            )

    def _version_of(self, engine_name: str) -> str:
        """An engine's parts are imported before the engine itself has run and said its version."""
        for engine in self.engines:
            if engine.name == engine_name and engine_name not in self._versions:
                self._versions[engine_name] = _version(engine.distribution)
        return self._versions.get(engine_name, "")

    def _report_modules_never_seen(self) -> None:
        called = {site.engine_name for site in self._sites if site.is_called}
        for site in self._sites:
            parent, _, _ = site.module_pattern.rpartition(".")
            package = sys.modules.get(parent)
            if site.wrapped or package is None:
                continue
            if site.module_pattern in sys.modules:
                # An engine may only be imported, as transformers is by others: what it did not make it cannot lack.
                if site.engine_name in called and site.is_defined_nowhere(sys.modules[site.module_pattern]):
                    self._missing(site, f"none of the classes here defines {site.qualname.rpartition('.')[2]}")
                continue
            if site.module_pattern.endswith(".*"):
                continue
            if PathFinder.find_spec(site.module_pattern, getattr(package, "__path__", None)) is None:
                self._missing(site, f"there is no module {site.module_pattern}")

    # --- calls

    def enter(
        self,
        tracepoint: Tracepoint,
        binding: Binding,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        is_for_subclasses: bool = False,
    ) -> Call | None:
        """A wrapped function is entered. None when it is to run unobserved (our own code calls, or a super() call)."""
        state = self._state
        if state.is_ours:
            return None
        if is_for_subclasses and args:
            method = (id(tracepoint), id(args[0]))
            if method in state.open_methods:
                return None
            state.open_methods.add(method)
        if not self.gate.is_open:
            self.gate.serve()  # a forked child gets its own door on its first call
        call = self.open(tracepoint, binding, args, kwargs)
        state.open_calls += 1
        call.is_entered = True
        state.recorded_error = None
        if call.rank not in self._joined and tracepoint.stage in _OF_A_RANK:
            self._join(call.rank)
        self._tell("enter", call)
        return call

    def open(self, tracepoint: Tracepoint, binding: Binding, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
        """A call that no inspector has been told of yet."""
        call = Call(self, tracepoint, binding, args, kwargs)
        call.rank = self.rank()
        call.depth = self.recorder.depth()
        call.start_ns = time.monotonic_ns()
        return call

    def leave(self, call: Call, result: Any) -> None:
        """The function returned `result`."""
        call.dur_ns = time.monotonic_ns() - call.start_ns
        call.result = result
        self._tell("leave", call)
        self._close(call)

    def failed(self, call: Call, error: BaseException) -> None:
        """The function raised; recorded once, at the innermost tracepoint."""
        call.dur_ns = time.monotonic_ns() - call.start_ns
        state = self._state
        if state.recorded_error is not error and error_name(error) not in self._unwinding:
            state.recorded_error = error
            with self.guarded(None):
                self.recorder.point(stage_failed(call, error), call.rank, call.tracepoint.stage)
                self.recorder.flush()  # many a process has not long to live after this
        self._tell("failed", call, error)
        self._close(call)

    def _tell(self, verb: str, call: Call, *facts: Any) -> None:
        """Call a method of each inspector, guarded as in `guarded`, which costs too much to do for each of them."""
        stage = call.tracepoint.stage
        route = self._routes.get((verb, stage))
        if route is None:
            route = self._route(verb, stage)
        state, plain = self._state, plain_tensors()
        was, state.is_ours = state.is_ours, True
        if plain is not None:
            plain.__enter__()
        try:
            for inspector, method in route:
                try:
                    method(call, *facts)
                except Exception as error:  # noqa: PERF203 - a fault of one must not keep the others from the call
                    self.fault(inspector, error)
        finally:
            if plain is not None:
                plain.__exit__(None, None, None)
            state.is_ours = was

    def _route(self, verb: str, stage: str) -> _Route:
        """Who is told; on the way out in the reverse order of the way in."""
        found = tuple((i, getattr(i, verb)) for i in self.inspectors if stage in i.stages)
        route = self._routes[verb, stage] = found if verb == "enter" else found[::-1]
        return route

    def _close(self, call: Call) -> None:
        state = self._state
        self.recorder.unwind(call.depth)
        if not call.is_entered:
            return
        if state.open_methods and call.args:
            state.open_methods.discard((id(call.tracepoint), id(call.args[0])))
        state.open_calls = max(0, state.open_calls - 1)
        if not state.open_calls:
            state.recorded_error = None

    def rank(self) -> int:
        """The tensor-parallel rank of this thread as the engine says it, NO_RANK when it does not."""
        for engine in self._rank_knowing:
            function = self._ranks.get(engine.name) or self._rank_function(engine)
            if function is None:
                continue
            try:
                return int(function())
            except Exception:
                return NO_RANK  # engines raise here before their groups are made
        return NO_RANK

    def _rank_function(self, engine: Engine) -> Callable[[], int] | None:
        function = _imported(engine.rank)
        if function is not None:
            self._ranks[engine.name] = function
        return function

    def _join(self, rank: int) -> None:
        """Record the size of the group whose rank makes its first call."""
        self._joined.add(rank)
        engine = next((one for one in self._rank_knowing if one.name in self._ranks), None)
        size = _imported(engine.tp_size) if engine is not None else None
        if engine is None or size is None:
            return
        with self.guarded(None):
            self.recorder.point(RankJoined(engine=engine.name, tp=int(size())), rank)

    # --- inspectors

    def guarded(self, inspector: Inspector | None) -> _Guard:
        """Code of ours in a host thread: its calls are not observed, its faults disable the inspector."""
        return _Guard(self, self._state, inspector)

    def has(self, inspector: Inspector) -> bool:
        """True until the inspector faults."""
        return inspector in self.inspectors

    @property
    def is_ours(self) -> bool:
        """True while this thread runs code of the probe."""
        return self._state.is_ours

    def fault(self, inspector: Inspector | None, error: Exception) -> None:
        """Record that `inspector` raised `error` and tell it of no more calls."""
        name = type(inspector).__module__.rpartition(".")[2] if inspector is not None else "probe"
        if inspector is not None:
            if inspector not in self.inspectors:
                return
            self.inspectors.remove(inspector)
            self._routes.clear()
        self._faulted(name, error)

    def _faulted(self, name: str, error: Exception) -> None:
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        where = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else ""
        body = InspectorFaulted(inspector=name, error=f"{type(error).__name__}: {error}", where=where)
        self.recorder.point(body, self.rank())

    def _say(self, text: str) -> None:
        if sys.stderr is not None:
            print(f"loadscope: {text}", file=sys.stderr)


def _imported(place: str) -> Callable[[], int] | None:
    """The function at "module:name" of a module that was imported already."""
    module, _, name = place.partition(":")
    return getattr(sys.modules.get(module), name, None) if name else None


def _version(distribution: str) -> str:
    metadata = importlib.import_module("importlib.metadata")
    try:
        return str(metadata.version(distribution))
    except metadata.PackageNotFoundError:
        return ""


_started: list[Probe] = []


def running_probe() -> Probe | None:
    """The probe of this process, None before the first engine is imported."""
    return _started[0] if _started else None


def start_probe(folder: str) -> Probe:
    """The probe of this process, made on the first call; raises what a broken manifest or adapter raises."""
    if not _started:
        probe = Probe(Settings.read(folder))
        _started.append(probe)
        probe.watch_imports()
    return _started[0]
