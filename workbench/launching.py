"""From what a person asked for to a host that is ready to start: the session folder, its manifest, its command."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from inspectors.probe.events import KINDS
from inspectors.probe.recorder import DEFAULT_MAX_EVENTS
from inspectors.probe.tracepoint import Engine, Launch
from sessions.manifest import Manifest, Outcome, timestamp
from sessions.recipe import Recipe
from workbench import arming, hostpython, machine, places, planted, plugins
from workbench.attaching.process import Process
from workbench.checkpointfiles import files_of
from workbench.errors import UserError
from workbench.host import Host
from workbench.preflight.config import ModelFacts

DEFAULT_LEVEL = "ledger"
LEVEL_WITHOUT_MEMORY = "calls"
PROMPT_IDS = (1, 2, 3, 4, 5)
NEW_TOKENS = 4


@dataclass(frozen=True)
class Watch:
    """How a host is watched, whatever the host is."""

    verb: str
    level: str = DEFAULT_LEVEL
    output: str | None = None
    is_paused_at_start: bool = False
    breakpoints: tuple[str, ...] = ()
    max_events: int = DEFAULT_MAX_EVENTS
    echoes_log: bool = False
    scenario: str | None = None
    timeout_s: float | None = None
    hold_s: float = 0.0
    listen: str = ""
    limits: str = ""


@dataclass(frozen=True)
class Load:
    """One load that an engine is asked for; `extra` are words of the engine's own command line.

    `python` is the interpreter of the engine's environment, empty for this one; `rank` is "all" or one rank's number.
    `planted` names the scenario whose defect the engine shall have, "" for none.
    """

    model: Path
    engine: str
    tp: int = 1
    device: str = "cpu"
    prompt_ids: tuple[int, ...] = PROMPT_IDS
    max_new_tokens: int = NEW_TOKENS
    extra: tuple[str, ...] = ()
    python: str = ""
    rank: str = "all"
    environment: Mapping[str, str] = field(default_factory=dict)
    planted: str = ""


def host_of_load(load: Load, facts: ModelFacts, watch: Watch) -> Host:
    """Make the session folder and the host for one load; nothing runs yet. Raises UserError (exit 2)."""
    engine = engine_named(load.engine)
    watch = _watchable(watch, load.device.partition(":")[0])
    launch = Launch(
        model=str(load.model),
        tp=load.tp,
        device=load.device,
        prompt_ids=load.prompt_ids,
        max_new_tokens=load.max_new_tokens,
        extra=load.extra,
        python=load.python,
        rank=load.rank,
        is_stepped=watch.is_paused_at_start or bool(watch.breakpoints),
    )
    argv = engine.command(launch)
    command = planted.command(argv, load.planted) if load.planted else argv
    folder = places.new_session_folder(watch.verb, load.model.name, watch.output)
    manifest = _manifest(watch, folder, (plugins.module_name(plugins.ENGINES, load.engine),))
    return Host(
        folder,
        dataclasses.replace(
            manifest,
            command=arming.armed(command),
            engine=engine.name,
            engine_version=_version(load, engine),
            device=load.device,
            tp=load.tp,
            model=str(load.model),
            name=load.model.name,
            format=facts.format,
            architecture=facts.architecture,
            versions=_versions(load.python),
            recipe=_recipe(load),
        ),
        echoes_log=watch.echoes_log,
    )


def _watchable(watch: Watch, device: str) -> Watch:
    """`watch` at the level that the device allows; raises UserError (exit 2) for an unknown one, before the host runs.

    Without values there is no memory either, so the ledger would see nothing written.
    """
    plugins.module_name(plugins.DEVICES, device)
    if device == Load.device:  # asking it would import torch
        return watch
    has_values = getattr(plugins.load(plugins.DEVICES, device), "has_values", True)
    return watch if has_values else dataclasses.replace(watch, level=LEVEL_WITHOUT_MEMORY)


def host_of_command(command: tuple[str, ...], engines: tuple[str, ...], watch: Watch) -> Host:
    """Make the session folder and the host for a command of the person's own; `engines` are dotted adapter modules."""
    name = next((Path(word).stem for word in command if word.endswith(".py")), Path(command[0]).name)
    folder = places.new_session_folder(watch.verb, name, watch.output)
    recipe = Recipe(folder=str(Path.cwd()))
    manifest = dataclasses.replace(_manifest(watch, folder, engines), command=command, name=name, recipe=recipe)
    return Host(folder, manifest, echoes_log=watch.echoes_log, timeout_s=watch.timeout_s)


def manifest_of_attached(process: Process, folder: Path, engines: tuple[str, ...], watch: Watch) -> Manifest:
    """The manifest of a session that begins in the middle of a process's life: it says so, and since when."""
    manifest = _manifest(watch, folder, engines)
    return dataclasses.replace(
        manifest,
        command=process.command,
        name=process.name,
        outcome=Outcome(state="running"),
        extra={**manifest.extra, "attached": {"at": manifest.created, "pid": process.pid}},
    )


def _recipe(load: Load) -> Recipe:
    return Recipe(
        prompt_ids=load.prompt_ids,
        max_new_tokens=load.max_new_tokens,
        extra=load.extra,
        python=load.python,
        rank=load.rank,
        planted=load.planted,
        folder=str(Path.cwd()),
        files=files_of(load.model),
    )


def _versions(python: str) -> tuple[str, ...]:
    """What decides what a load does, besides the engine; of another environment only its own Python knows."""
    known = [f"loadscope {version_of('loadscope')}"]
    return tuple(known) if python else (*known, f"torch {version_of('torch')}")


def _version(load: Load, engine: Engine) -> str:
    return hostpython.installed(load.python, engine).version if load.python else version_of(engine.distribution)


def engine_named(name: str) -> Engine:
    """The adapter of that name. Raises UserError (exit 2) for an unknown one."""
    engine = plugins.load(plugins.ENGINES, name)
    if not isinstance(engine, Engine):
        raise UserError(f"the engine {name!r} has no Engine in its constant ENGINE", "ask the author of that plugin")
    return engine


def embedded_engine() -> str:
    """The name of the engine that comes with Loadscope."""
    own = (name for name in plugins.names(plugins.ENGINES) if engine_named(name).is_embedded)
    return next(own)


def version_of(distribution: str) -> str:
    """The installed version of a distribution, "source" when there is none."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "source"


def _manifest(watch: Watch, folder: Path, engines: tuple[str, ...]) -> Manifest:
    return Manifest(
        id=folder.name,
        created=timestamp(),
        verb=watch.verb,
        level=watch.level,
        engines=engines,
        inspectors=inspector_modules(),
        scenario=watch.scenario,
        is_paused_at_start=watch.is_paused_at_start,
        breakpoints=watch.breakpoints,
        max_events=watch.max_events,
        extra={**machine.measured_facts(), **_waiting(watch)},
        limits=watch.limits,
        kinds=tuple(sorted(KINDS)),
    )


def _waiting(watch: Watch) -> dict[str, object]:
    """How somebody can come in while the host runs; nothing of it where it was not asked for."""
    said: dict[str, object] = {"hold_seconds": watch.hold_s, "listen": watch.listen}
    return {name: value for name, value in said.items() if value}


def inspector_modules() -> tuple[str, ...]:
    """The dotted modules of all inspectors, which the probe imports in the host."""
    return tuple(plugins.module_name(plugins.INSPECTORS, name) for name in plugins.names(plugins.INSPECTORS))
