"""`loadscope coverage`: say which parameters were not filled exactly once."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from dataclasses import asdict

from sessions.parameters import ParameterView, parameters
from sessions.session import Session
from sessions.summary import CoverageTotals, summary
from workbench import arguments, places
from workbench.command import Command
from workbench.errors import CLEAN, FINDINGS, INCOMPLETE, UserError

CELLS = 24


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "session", metavar="SESSION", help="a session folder or a bundle, recorded at level ledger or above"
    )
    parser.add_argument("--all", action="store_true", help="list every parameter, also those that are whole")
    arguments.add_json(parser)


def _run(args: Namespace) -> int:
    session = Session.open(places.session_folder(args.session))
    try:
        totals = summary(session).coverage
        if totals is None:
            level = session.manifest.level
            raise UserError(
                f"{session.folder} holds no writes: it was recorded at level {level}",
                "record the load again with --level ledger",
                INCOMPLETE,
            )
        views = parameters(session)
        odd = tuple(view for view in views if not is_whole(view))
        code = FINDINGS if odd else CLEAN
        if args.json:
            print(json.dumps(_said(args.verb, code, session, totals, views if args.all else odd)))
        else:
            print("\n".join(_lines(views if args.all else odd)))
            print(f"{len(views) - len(odd):,} of {len(views):,} parameters were filled exactly once")
    finally:
        session.close()
    return code


def is_whole(view: ParameterView) -> bool:
    """True when every element is known to have been written exactly once."""
    said = view.coverage
    return said.is_known and said.never_written == 0 and said.written_twice == 0


def _said(
    verb: str, code: int, session: Session, totals: CoverageTotals, views: tuple[ParameterView, ...]
) -> dict[str, object]:
    return {
        "schema": 1,
        "verb": verb,
        "outcome": "findings" if code else "ok",
        "exit_code": code,
        "session": str(session.folder),
        "coverage": asdict(totals),
        "parameters": [_row(view) for view in views],
    }


def _row(view: ParameterView) -> dict[str, object]:
    return {"parameter": view.name, "rank": view.rank, "shape": list(view.shape), **asdict(view.coverage)}


def _lines(views: tuple[ParameterView, ...]) -> list[str]:
    return [f"{view.cells(CELLS)}  rank {view.rank}  {view.name}: {_in_words(view)}" for view in views]


def _in_words(view: ParameterView) -> str:
    said = view.coverage
    if not said.is_known:
        return "not known, some writes could not be placed"
    return f"{said.never_written:,} of {said.elements:,} never written, {said.written_twice:,} written twice"


COMMAND = Command(
    summary="say which parameters were not filled exactly once",
    examples=("loadscope coverage ./session", "loadscope coverage ./session --all --json"),
    add_arguments=_add_arguments,
    run=_run,
)
