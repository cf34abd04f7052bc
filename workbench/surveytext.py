"""Tells which tracepoints of an engine an environment has, as lines or as one JSON object."""

from __future__ import annotations

import json

from workbench import hostpython, launching
from workbench.errors import CLEAN, INCOMPLETE
from workbench.survey import Resolution, survey


def tell_tracepoints(name: str, python: str, *, as_json: bool) -> int:
    """Print which tracepoints of an engine an environment has; exit code 5 when one is missing that should be there.

    Raises UserError (exit 2) for an unknown engine, or a Python that has not got it.
    """
    engine = launching.engine_named(name)
    found = hostpython.installed(python, engine)
    resolutions = survey(engine, found.folder, found.version)
    missing = [one for one in resolutions if not one.is_fine]
    code = INCOMPLETE if missing else CLEAN
    if as_json:
        rows = [_as_json(one) for one in resolutions]
        about = {"schema": 1, "verb": "doctor", "outcome": "incomplete" if missing else "ok", "exit_code": code}
        print(json.dumps({**about, "engine": engine.name, "engine_version": found.version, "tracepoints": rows}))
        return code
    print(f"{engine.name} {found.version} in {found.folder}")
    for one in resolutions:
        point = one.tracepoint
        mark = "✗" if not one.is_fine else "•" if one.places else "–"
        print(f"{mark} {point.shows:<18} {point.target.removeprefix(f'{engine.module}.')}  {_told(one)}")
    print(f"{sum(bool(one.places) for one in resolutions)} of {len(resolutions)} tracepoints are there", end="")
    print(f", {len(missing)} missing: what they show will not be recorded" if missing else "")
    return code


def _told(one: Resolution) -> str:
    point = one.tracepoint
    if not one.places:
        until, since = (f"up to {point.before}" if point.before else ""), (f"from {point.since}" if point.since else "")
        return "not found" if one.is_expected else f"only {since or until}"
    lacks = f", without {', '.join(one.lacks)}" if one.lacks else ""
    return f"{one.places[0]}{f' and {len(one.places) - 1} more' if len(one.places) > 1 else ''}{lacks}"


def _as_json(one: Resolution) -> dict[str, object]:
    point = one.tracepoint
    return {
        "stage": point.stage, "shows": point.shows, "target": point.target, "since": point.since,
        "before": point.before, "is_expected": one.is_expected, "places": one.places, "lacks": one.lacks,
    }  # fmt: skip
