"""What a file of `scenarios/` says: a checkpoint to make, a defect to plant and the finding that it must give."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from workbench import plugins
from workbench.errors import UserError


@dataclass(frozen=True)
class Scenario:
    """One recipe: the constant SCENARIO of `scenarios/<scenario>.py`.

    `architecture` is the name in config.json; `overrides` replace fields of that architecture's tiny config, `sizes`
    those of its language model, which may stand in a `text_config` of their own.
    The defect is planted by `plant`, which the host calls before the engine starts (it replaces what the faulty engine
    had otherwise), or by `extra`, words for the engine's command line; a repaired load has neither. `words` go to both.
    `expects` is the class of the first finding, None for a load without one; `engine` None is the embedded one.
    `write` makes the checkpoint of a format that is no folder with a config.json: it is given the folder, the config
    and a seed. A plain `demo` shows the default one.
    """

    description: str
    checkpoint: str
    architecture: str
    overrides: Mapping[str, object] = field(default_factory=dict)
    sizes: Mapping[str, object] = field(default_factory=dict)
    engine: str | None = None
    tp: int = 4
    device: str = "cpu"
    prompt_tokens: int | None = None
    words: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    plant: Callable[[], None] | None = None
    write: Callable[[Path, Mapping[str, object], int], object] | None = None
    expects: str | None = None
    is_default: bool = False


def scenario_named(name: str) -> Scenario:
    """The scenario of that name. Raises UserError (exit 2) with the nearest known one."""
    scenario = plugins.load(plugins.SCENARIOS, name)
    if not isinstance(scenario, Scenario):
        raise UserError(
            f"the scenario {name!r} has no Scenario in its constant SCENARIO", "ask the author of that plugin"
        )
    return scenario


def default_name() -> str:
    """The name of the scenario that a plain `demo` shows."""
    return next(name for name in plugins.names(plugins.SCENARIOS) if scenario_named(name).is_default)
