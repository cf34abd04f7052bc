"""The other half of the start screen: starts the hosts asked for there, and ends them when the screens close."""

from __future__ import annotations

import threading
from pathlib import Path

from workbench import launching, places, plugins
from workbench.demonstration import host_of_scenario
from workbench.host import Host
from workbench.launching import Watch
from workbench.preflight.check import check
from workbench.scenario import scenario_named


class Hosts:
    """The hosts that were started from the screens; each is waited for in a thread of its own."""

    def __init__(self) -> None:
        self._running: list[tuple[Host, threading.Thread]] = []

    def launch(self, model: str, engine: str, tp: int, level: str, is_paused: bool, scenario: str | None) -> Path:
        """Check, start, and return the session folder. Raises UserError for what a person can repair."""
        watch = Watch("demo" if scenario else "trace", level=level, is_paused_at_start=is_paused, scenario=scenario)
        if scenario is not None:
            host = host_of_scenario(scenario, watch, is_quiet=True)
        else:
            load = launching.Load(model=Path(model).expanduser().absolute(), engine=engine, tp=tp)
            facts = check(load.model, launching.engine_named(engine), tp)
            host = launching.host_of_load(load, facts, watch)
        host.start()
        waiting = threading.Thread(target=host.wait, name="loadscope-host", daemon=True)
        waiting.start()
        self._running.append((host, waiting))
        return host.folder

    def end(self) -> None:
        """Interrupt what still runs and wait until each outcome is written."""
        for host, waiting in self._running:
            if host.is_running():
                host.interrupt()
            waiting.join()


def open_start() -> int:
    """Open the start screen and return the exit code."""
    from workbench.replay.onscreen import Replays
    from workbench.tui.app import run

    hosts, replays = Hosts(), Replays()
    scenarios = [(name, scenario_named(name).description) for name in plugins.names(plugins.SCENARIOS)]
    try:
        return run(
            None,
            launcher=hosts.launch,
            replayer=replays.replay,
            scenarios=scenarios,
            sessions_folder=places.sessions_folder(),
        )
    finally:
        replays.end()
        hosts.end()
