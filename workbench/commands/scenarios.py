"""`loadscope scenarios`: list the planted defects that `loadscope demo` can show."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace

from workbench import arguments, plugins
from workbench.command import Command
from workbench.errors import CLEAN
from workbench.scenario import scenario_named


def _add_arguments(parser: ArgumentParser) -> None:
    arguments.add_json(parser)


def _run(args: Namespace) -> int:
    known = {name: scenario_named(name) for name in plugins.names(plugins.SCENARIOS)}
    if args.json:
        rows = [
            {"name": name, "description": s.description, "expects": s.expects, "tp": s.tp} for name, s in known.items()
        ]
        print(json.dumps({"schema": 1, "verb": "scenarios", "outcome": "ok", "exit_code": CLEAN, "scenarios": rows}))
        return CLEAN
    width = max(map(len, known), default=0)
    for name, scenario in known.items():
        print(f"{name:<{width}}  {scenario.description}")
        print(f"{'':<{width}}  expects: {scenario.expects or 'no finding'}")
    return CLEAN


COMMAND = Command(
    summary="list the planted defects that demo can show",
    examples=("loadscope scenarios", "loadscope scenarios --json"),
    add_arguments=_add_arguments,
    run=_run,
)
