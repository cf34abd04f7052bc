"""From a session to a host that does the same again; a session is a file of anybody's, and nothing in it is obeyed."""

from __future__ import annotations

import dataclasses
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from inspectors.probe.recorder import DEFAULT_MAX_EVENTS
from inspectors.probe.tracepoint import Engine
from sessions.legitimate import LEVELS
from sessions.liveness import is_running
from sessions.manifest import Manifest
from sessions.recipe import Recipe
from sessions.session import Session
from workbench import arming, hostpython, launching
from workbench.checkpointfiles import differing, files_of, written_since
from workbench.errors import INCOMPLETE, UserError
from workbench.host import Host
from workbench.launching import Load, Watch
from workbench.preflight.check import check
from workbench.recipe import checkpoint_of
from workbench.scenario import Scenario, scenario_named

MOST_TOLD = 3
_RANK = re.compile(r"all|\d{1,6}")


@dataclass(frozen=True)
class Asked:
    """What the person wants of a replay. `may_run`: commands and words that the session names may be executed."""

    model: Path | None = None
    python: str = ""
    level: str = ""
    output: str | None = None
    may_run: bool = False
    echoes_log: bool = False


@dataclass
class Again:
    """The host that will do the same again, and what the person should know of it before."""

    host: Host
    notes: list[str] = field(default_factory=list)


def again(session: Session, asked: Asked) -> Again:
    """The host of a replay, its session folder made; nothing runs yet. UserError when it cannot or may not be run."""
    manifest = session.manifest
    if is_running(session):
        raise UserError(f"the host of {session.folder} still runs", "replay it when it has ended", INCOMPLETE)
    level = asked.level or manifest.level
    if level not in LEVELS:
        raise UserError(f"{session.folder}: unknown level {printable(level)}", f"give --level: {', '.join(LEVELS)}")
    watch = Watch(
        "replay",
        level=level,
        output=asked.output,
        max_events=manifest.max_events if manifest.max_events > 0 else DEFAULT_MAX_EVENTS,
        echoes_log=asked.echoes_log,
    )
    return _load_again(session, asked, watch) if manifest.engine else _command_again(manifest, asked, watch)


def printable(text: str) -> str:
    """A text of a file as it may be shown on a terminal: control characters as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _command_again(manifest: Manifest, asked: Asked, watch: Watch) -> Again:
    if not manifest.command:
        raise UserError("this session names no engine and no command", "record the load again", INCOMPLETE)
    command = printable(shlex.join(manifest.command))
    folder = Path(manifest.recipe.folder) if manifest.recipe is not None and manifest.recipe.folder else Path.cwd()
    if not asked.may_run:
        raise UserError(
            f"this session is of a command, which the replay would execute in {printable(str(folder))}: {command}",
            "read it first, since anybody can write a session; if you want it to run, add --run",
        )
    if not folder.is_dir():
        raise UserError(f"the folder of the command is not there: {folder}", "make it, or run the command by hand")
    if not arming.arms(manifest.command[0]):
        raise UserError(
            f"the Python of {printable(manifest.command[0])} has no {arming.PTH_NAME}, so the command cannot be armed",
            "pip install --no-deps loadscope, in the environment of the command",
            INCOMPLETE,
        )
    host = launching.host_of_command(manifest.command, manifest.engines, watch)
    host.working_folder = folder
    return Again(host, [f"executed   {command}"])


def _load_again(session: Session, asked: Asked, watch: Watch) -> Again:
    manifest, notes = session.manifest, []
    engine = launching.engine_named(manifest.engine)
    scenario = scenario_named(manifest.scenario) if manifest.scenario else None
    recipe = manifest.recipe
    if recipe is None:
        recipe = _guessed(manifest, scenario)
        notes.append("the recording does not say what it was asked for: its prompt was read from its command")
    _permit(engine, recipe, scenario, asked)
    model = _model(manifest, scenario, asked, notes)
    notes += _same_checkpoint(session, model, recipe)
    python = _python(engine, recipe, asked)
    facts = check(model, engine, manifest.tp)
    load = Load(
        model=model,
        engine=manifest.engine,
        tp=manifest.tp,
        device=manifest.device or Load.device,
        prompt_ids=recipe.prompt_ids,
        max_new_tokens=recipe.max_new_tokens,
        extra=recipe.extra,
        python=python,
        rank=recipe.rank if _RANK.fullmatch(recipe.rank) else "all",
        planted=recipe.planted,
    )
    if recipe.planted:
        scenario_named(recipe.planted)  # the word goes into a command line: it must be one of ours
        notes.append(f"planted the defect of the scenario {recipe.planted} again")
    return Again(launching.host_of_load(load, facts, dataclasses.replace(watch, scenario=manifest.scenario)), notes)


def _guessed(manifest: Manifest, scenario: Scenario | None) -> Recipe:
    """Of a recording older than recipes: numbers out of its command, words and defect out of our own scenario."""
    ids = [word for word in _after(manifest.command, "--prompt-ids").split(",") if word.isdigit()]
    tokens = _after(manifest.command, "--max-new-tokens")
    extra = (*scenario.words, *scenario.extra) if scenario is not None else ()
    return Recipe(
        prompt_ids=tuple(map(int, ids)) or launching.PROMPT_IDS,
        max_new_tokens=int(tokens) if tokens.isdigit() else launching.NEW_TOKENS,
        extra=extra,
        planted=manifest.scenario or "" if scenario is not None and scenario.plant is not None else "",
    )


def _after(words: Sequence[str], flag: str) -> str:
    """The word after the last occurrence of a flag."""
    places = [n for n, word in enumerate(words[:-1]) if word == flag]
    return words[places[-1] + 1] if places else ""


def _permit(engine: Engine, recipe: Recipe, scenario: Scenario | None, asked: Asked) -> None:
    """Refuse words and interpreters that only the session vouches for."""
    own = (*scenario.words, *scenario.extra) if scenario is not None else ()
    is_known = engine.has_harmless_words or recipe.extra in ((), own)
    if not is_known and not asked.may_run:
        raise UserError(
            f"the session has words of its own for the engine {engine.name}: {printable(shlex.join(recipe.extra))}",
            "read them first, since anybody can write a session; if you want them to be used, add --run",
        )
    is_ours = recipe.python in ("", sys.executable)
    if not is_ours and not asked.python and not asked.may_run:
        raise UserError(
            f"the load ran in another Python, which the replay would execute: {printable(recipe.python)}",
            "name the Python of the engine's environment with --python PATH, or add --run to use that one",
        )


def _python(engine: Engine, recipe: Recipe, asked: Asked) -> str:
    if engine.is_embedded:
        return ""
    python = asked.python or recipe.python or sys.executable
    hostpython.installed(python, engine)
    return python


def _model(manifest: Manifest, scenario: Scenario | None, asked: Asked, notes: list[str]) -> Path:
    if asked.model is not None:
        return asked.model
    model = Path(manifest.model)
    if model.is_absolute() and model.exists():
        return model
    if scenario is not None:
        notes.append("the scenario's checkpoint was not where it was recorded: it was made again")
        return checkpoint_of(scenario, is_quiet=True)
    raise UserError(
        f"the checkpoint of this recording is not there: {printable(manifest.model) or 'it names none'}",
        "say where it is now with --model PATH",
        INCOMPLETE,
    )


def _same_checkpoint(session: Session, model: Path, recipe: Recipe) -> list[str]:
    """What is to be said of the checkpoint's files. UserError where they are not the recorded ones."""
    here = files_of(model) if model.exists() else ()
    found = differing(recipe.files, here) if model.exists() else []
    if found:
        more = f", and {len(found) - MOST_TOLD} more" if len(found) > MOST_TOLD else ""
        raise UserError(
            f"{model} is not the checkpoint that was recorded: {', '.join(map(printable, found[:MOST_TOLD]))}{more}",
            f"name it with --model PATH; loadscope replay {session.folder} --against OTHER compares two recordings",
            INCOMPLETE,
        )
    since = written_since(recipe.files, here)
    samples = "size, header and samples of its data are the same"
    return [f"{name} was written again since the recording; {samples}" for name in since[:MOST_TOLD]]
