"""From the name of a scenario to a host that is ready to start, its checkpoint made and checked."""

from __future__ import annotations

import dataclasses

from workbench import launching
from workbench.host import Host
from workbench.launching import Load, Watch
from workbench.preflight.check import check
from workbench.recipe import checkpoint_of
from workbench.scenario import scenario_named


def host_of_scenario(
    name: str, watch: Watch, *, tp: int | None = None, extra: tuple[str, ...] = (), is_quiet: bool
) -> Host:
    """The host of one scenario at its own tp, or at `tp`. Raises UserError, exit 2, for a wrong name or tp."""
    scenario = scenario_named(name)
    size = tp if tp is not None else scenario.tp
    engine = scenario.engine or launching.embedded_engine()
    model = checkpoint_of(scenario, is_quiet=is_quiet)
    facts = check(model, launching.engine_named(engine), size)
    load = Load(model=model, engine=engine, tp=size, extra=(*scenario.extra, *extra))
    return launching.host_of_load(load, facts, dataclasses.replace(watch, scenario=name))
