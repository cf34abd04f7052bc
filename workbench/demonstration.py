"""From the name of a scenario to a host that is ready to start, its checkpoint made and checked."""

from __future__ import annotations

import dataclasses

from workbench import launching
from workbench.host import Host
from workbench.launching import PROMPT_IDS, Load, Watch
from workbench.preflight.check import check
from workbench.recipe import checkpoint_of
from workbench.scenario import Scenario, scenario_named


def host_of_scenario(
    name: str,
    watch: Watch,
    *,
    tp: int | None = None,
    extra: tuple[str, ...] = (),
    is_repaired: bool = False,
    is_quiet: bool,
) -> Host:
    """The host of one scenario at its own tp, or at `tp`; `is_repaired` loads the same checkpoint without the defect.

    Raises UserError, exit 2, for a wrong name or tp.
    """
    scenario = scenario_named(name)
    size = tp if tp is not None else scenario.tp
    engine = scenario.engine or launching.embedded_engine()
    model = checkpoint_of(scenario, is_quiet=is_quiet)
    facts = check(model, launching.engine_named(engine), size)
    planting = () if is_repaired else scenario.extra
    load = Load(
        model=model,
        engine=engine,
        tp=size,
        device=scenario.device,
        prompt_ids=prompt_ids(scenario),
        extra=(*scenario.words, *planting, *extra),
        planted="" if is_repaired or scenario.plant is None else name,
    )
    return launching.host_of_load(load, facts, dataclasses.replace(watch, scenario=None if is_repaired else name))


def prompt_ids(scenario: Scenario) -> tuple[int, ...]:
    """The prompt: as long as the scenario wants it, its tokens 1, 2, 3, … over and over."""
    count = scenario.prompt_tokens or len(PROMPT_IDS)
    return tuple(PROMPT_IDS[n % len(PROMPT_IDS)] for n in range(count))
