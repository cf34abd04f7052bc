"""Runs an engine with the defect of a scenario in it: `python -m workbench.planted SCENARIO ENGINE_MODULE WORDS…`."""

from __future__ import annotations

import runpy
import sys

from workbench.scenario import scenario_named


def command(argv: tuple[str, ...], scenario: str) -> tuple[str, ...]:
    """An engine's `PYTHON -m MODULE WORDS…` with the defect planted before the module runs."""
    python, flag, module, *words = argv
    return (python, flag, __name__, scenario, module, *words)


def main() -> None:
    """Plant, then run the engine's module as if it had been started itself."""
    name, module = sys.argv[1:3]
    del sys.argv[1:3]
    plant = scenario_named(name).plant
    if plant is not None:
        plant()
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
