"""What a file of `scenarios/` says: a checkpoint to make, a defect to plant and the finding that it must give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from workbench import plugins
from workbench.errors import UserError


@dataclass(frozen=True)
class Scenario:
    """One recipe: the constant SCENARIO of `scenarios/<scenario>.py`.

    `architecture` is the name in config.json; `overrides` replace fields of that architecture's tiny config.
    `extra` are words for the engine's command line, by which the defect is planted; `expects` is the class of the
    first finding, None for a load without one; `engine` None is the embedded one. A plain `demo` shows the default one.
    """

    description: str
    checkpoint: str
    architecture: str
    overrides: Mapping[str, object] = field(default_factory=dict)
    engine: str | None = None
    tp: int = 4
    extra: tuple[str, ...] = ()
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
