"""Makes the checkpoint of a scenario in the cache folder, once."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from workbench import places
from workbench.errors import UserError
from workbench.scenario import Scenario

SEED = 7
MAX_FILE_BYTES = 4 << 20
DIGEST_CHARACTERS = 8

Progress = Callable[[int, int], None]


def checkpoint_of(scenario: Scenario, *, is_quiet: bool) -> Path:
    """The folder of the scenario's checkpoint, made now if the cache has none of exactly this recipe.

    Raises UserError (exit 2) when the cache folder cannot be written to.
    """
    from backends.native.registry import architecture_module

    config = config_of(scenario, architecture_module(scenario.architecture).tiny_config())
    said = json.dumps([config, SEED, MAX_FILE_BYTES, _writer_digest(scenario)], sort_keys=True)
    folder = places.cache_folder() / "checkpoints" / hashlib.sha256(said.encode()).hexdigest()[:DIGEST_CHARACTERS]
    target = folder / scenario.checkpoint
    if not target.exists():
        try:
            _make(target, config, scenario, is_quiet=is_quiet)
        except OSError as error:
            raise UserError(
                f"the demo checkpoint cannot be written to {target}: {error.strerror or error}",
                "set XDG_CACHE_HOME to a writable folder",
            ) from error
    return target


def config_of(scenario: Scenario, tiny_config: Mapping[str, object]) -> dict[str, object]:
    """The scenario's config.json, made from its architecture's."""
    config = {**tiny_config, **scenario.overrides}
    inner = config.get("text_config")
    if isinstance(inner, Mapping):
        return {**config, "text_config": {**inner, **scenario.sizes}}
    return {**config, **scenario.sizes}


def _make(target: Path, config: dict[str, object], scenario: Scenario, *, is_quiet: bool) -> None:
    from backends.native.checkpoint.synthesize import write_checkpoint

    part = target.with_name(f"{target.name}.{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    with _progress_bar(f"writing {target.name}", is_quiet=is_quiet) as progress:
        if scenario.write is not None:
            scenario.write(part, config, SEED)
        else:
            write_checkpoint(part, config, seed=SEED, max_file_bytes=MAX_FILE_BYTES, progress=progress)
    try:
        part.rename(target)
    except OSError:
        shutil.rmtree(part, ignore_errors=True)
        if not target.exists():  # else another process made the same checkpoint in the meantime
            raise


def _writer_digest(scenario: Scenario) -> str:
    """Of the sources that decide what the checkpoint holds, apart from its config."""
    from backends.native.checkpoint import gguf_synthesize, synthesize

    sources = [synthesize.__file__]
    if scenario.write is not None:
        sources += [gguf_synthesize.__file__, inspect.getfile(scenario.write)]
    return hashlib.sha256(b"".join(Path(source).read_bytes() for source in sources)).hexdigest()


@contextmanager
def _progress_bar(what: str, *, is_quiet: bool) -> Iterator[Progress | None]:
    if is_quiet:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("tensors"))
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
