"""All checks of a load in the order in which a person would want to hear of them."""

from __future__ import annotations

from pathlib import Path

from inspectors.probe.tracepoint import Engine
from workbench.preflight.config import ModelFacts, read_facts
from workbench.preflight.files import check_files
from workbench.preflight.parallel import check_tp
from workbench.preflight.support import check_support


def check(folder: Path, engine: Engine, tp: int) -> ModelFacts:
    """What config.json says, after the files, the names and the sizes were checked; raises UserError."""
    facts = read_facts(folder)
    check_tp(facts.fields, tp)
    check_files(folder)
    check_support(engine, folder)
    return facts
