"""The door into a host process: inert without LOADSCOPE_SESSION, and light until an engine is imported."""

# Read at every start of Python: nothing is imported here that Python has not already loaded.
import os
import sys
from _frozen_importlib_external import PathFinder

TYPE_CHECKING = False  # importing typing costs 5 ms
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # noqa: PTH100, PTH120 - pathlib costs 3 ms
_OURS = ("inspectors", "backends")
_WATCH_FILE = "watch.txt"
refusals: "list[str]" = []
"""Why this process is not recorded, for who asks later."""


def arm(*, is_at_startup: bool = False) -> None:
    """Watch for the engines which the session names; does nothing without LOADSCOPE_SESSION. Never raises.

    `is_at_startup` is for the `.pth` line: no module of ours stays in `sys.modules` until an engine is imported, so
    that a host with packages of the same names keeps its own.
    """
    folder = os.environ.get("LOADSCOPE_SESSION")
    if not folder:
        return
    before = set(sys.modules)
    if not any(getattr(finder, "loadscope_session", None) for finder in sys.meta_path):
        try:
            _arm(folder)
        except Exception as error:
            stay_out(f"the session cannot be used: {type(error).__name__}: {error} ({folder})")
    if is_at_startup and "inspectors.probe.agent" not in sys.modules:
        for name in set(sys.modules) - before | {"inspectors.probe.bootstrap", "inspectors.probe", "inspectors"}:
            if name.partition(".")[0] in _OURS:
                sys.modules.pop(name, None)


def _arm(folder: str) -> None:
    foreign = _foreign_package()
    if foreign:
        stay_out(foreign)
        return
    modules = _engine_modules(folder)
    watch = EngineWatch(folder, modules)
    sys.meta_path.insert(0, watch)
    if any(name in sys.modules for name in modules):
        watch.start()


def move_to(folder: str) -> None:
    """Record into another session from here on, this process and the children it starts."""
    os.environ["LOADSCOPE_SESSION"] = folder
    for finder in sys.meta_path:
        if getattr(finder, "loadscope_session", None):
            setattr(finder, "loadscope_session", folder)  # noqa: B010 - the list holds any finder
    agent = sys.modules.get("inspectors.probe.agent")
    probe = agent.running_probe() if agent is not None else None
    if probe is not None:
        from pathlib import Path

        probe.move_to(Path(folder))


def stay_out(why: str) -> None:
    """Say in one line why this host is not recorded, and keep its children out as well."""
    refusals.append(why)
    os.environ.pop("LOADSCOPE_SESSION", None)
    sys.meta_path[:] = [finder for finder in sys.meta_path if not getattr(finder, "loadscope_session", None)]
    if sys.stderr is not None:
        print(f"loadscope: not recording: {why}", file=sys.stderr)


def _foreign_package() -> str:
    """Why our package names are not ours in this host, or "" when they are."""
    for name in _OURS:
        module = sys.modules.get(name)
        spec = getattr(module, "__spec__", None) if module is not None else PathFinder.find_spec(name)
        places = list(getattr(spec, "submodule_search_locations", None) or ()) if spec is not None else []
        origin = getattr(spec, "origin", None) or getattr(module, "__file__", None)
        if not any(os.path.dirname(os.path.abspath(place)) == _ROOT for place in places):  # noqa: PTH100, PTH120
            found = places[0] if places else origin
            return f"the host has its own package '{name}' ({found}); rename it or take it off sys.path"
    return ""


def _engine_modules(folder: str) -> tuple[str, ...]:
    """The modules whose import shows an engine; kept in a file, since reading the adapters takes 25 ms."""
    path = f"{folder}/{_WATCH_FILE}"
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123 - pathlib costs 3 ms
            return tuple(file.read().split())
    except FileNotFoundError:
        pass
    import importlib
    import json

    with open(f"{folder}/session.json", encoding="utf-8") as file:  # noqa: PTH123
        names = json.load(file).get("engines") or ()
    if not names:
        raise ValueError("session.json names no engine under 'engines'")
    modules = tuple(importlib.import_module(name).ENGINE.module for name in names)
    try:
        with open(f"{path}.{os.getpid()}", "w", encoding="utf-8") as file:  # noqa: PTH123
            file.write("\n".join(modules) + "\n")
        os.replace(f"{path}.{os.getpid()}", path)  # noqa: PTH105
    except OSError:
        return modules  # a read-only session: the recorder will say so when there is something to record
    return modules


class EngineWatch:
    """A meta path finder that finds nothing: it starts the probe just before an engine's first import."""

    def __init__(self, folder: str, modules: tuple[str, ...]) -> None:
        self.loadscope_session, self._modules = folder, frozenset(modules)
        self._is_started = False

    def find_spec(
        self, name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        """None, but for the import that starts the probe: its hooks came too late to be asked, so this asks them."""
        if name not in self._modules or self._is_started:
            return None
        self.start()
        for finder in sys.meta_path:
            if getattr(finder, "reports_imports", False):
                return finder.find_spec(name, path, target)
        return None

    def start(self) -> None:
        """Load settings, inspectors and adapters and set the import hooks; a fault leaves the host alone."""
        self._is_started = True
        try:
            foreign = _foreign_package()
            if foreign:
                stay_out(foreign)
                return
            from inspectors.probe.agent import start_probe

            start_probe(self.loadscope_session)
        except Exception as error:
            stay_out(f"the probe did not start: {type(error).__name__}: {error}")
