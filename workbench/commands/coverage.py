"""`loadscope coverage`: elements never, twice or wrongly filled; from an element to its bytes and back."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable

from sessions.ledger import has_writes
from sessions.parameters import parameters
from sessions.provenance import names_of_parameters
from sessions.session import Session
from workbench import arguments, places
from workbench.command import Command
from workbench.coverage.asking import nearest
from workbench.coverage.bytesview import bytes_json, bytes_report, bytes_text
from workbench.coverage.elementview import element_json, element_report, element_text
from workbench.coverage.gathering import gathered
from workbench.coverage.saying import said
from workbench.coverage.telling import told
from workbench.coverage.wording import counted
from workbench.errors import CLEAN, FINDINGS, INCOMPLETE, UserError


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "session", metavar="SESSION", help="a session folder or a bundle, recorded at level ledger or above"
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--element", metavar="NAME[i,j]", help="tell of one element: its writes, calls, decision and source bytes"
    )
    which.add_argument(
        "--bytes", metavar="FILE:START-END", help="tell which elements these bytes of a checkpoint file filled"
    )
    which.add_argument(
        "--parameter",
        metavar="PATTERN",
        default="",
        help="only parameters whose name holds this, or matches it with * ?",
    )
    parser.add_argument(
        "--rank", type=int, metavar="N", help="only this rank (with --element: the rank to ask, else the first)"
    )
    parser.add_argument(
        "--processed", action="store_true", help="with --element: count in the parameter as post-processing left it"
    )
    parser.add_argument("--all", action="store_true", help="list every parameter, also those that are whole")
    arguments.add_json(parser)


def _run(args: Namespace) -> int:
    session = Session.open(places.session_folder(args.session))
    try:
        if not has_writes(session):
            raise _without_writes(session)
        if args.element is not None:
            return _element(args, session)
        return _bytes(args, session) if args.bytes is not None else _all(args, session)
    finally:
        session.close()


def _without_writes(session: Session) -> UserError:
    level = session.manifest.level
    what = f"{session.folder} holds no writes: it was recorded at level {level}"
    return UserError(what, "record the load again with --level ledger", INCOMPLETE)


def _element(args: Namespace, session: Session) -> int:
    report = element_report(session, args.element, args.rank, is_processed=args.processed)
    code = CLEAN if report.is_clean else FINDINGS
    _print(element_json(report, args.verb, code) if args.json else element_text(report))
    return code


def _bytes(args: Namespace, session: Session) -> int:
    report = bytes_report(session, args.bytes)
    _print(bytes_json(report, args.verb) if args.json else bytes_text(report))
    return CLEAN


def _all(args: Namespace, session: Session) -> int:
    report = gathered(session, pattern=args.parameter, rank=args.rank, shows_all=args.all)
    if report is None:
        raise _without_writes(session)
    if not report.total and (args.parameter or args.rank is not None):
        raise _nothing_fits(args, session)
    code = CLEAN if report.is_clean else FINDINGS
    is_alone = bool(args.parameter or args.all or args.rank is not None)
    _print(said(report, args.verb, code) if args.json else told(report, is_alone=is_alone))
    return code


def _nothing_fits(args: Namespace, session: Session) -> UserError:
    ranks = sorted({view.rank for view in parameters(session)})
    if args.rank is not None and args.rank not in ranks:
        return UserError(f"no parameter is on rank {args.rank}", f"the session has ranks {counted(ranks)}")
    near = nearest(args.parameter, names_of_parameters(session))
    try_ = f"did you mean {near}?" if near else "write a part of its name"
    return UserError(f"no parameter matches {args.parameter!r}", try_)


def _print(given: dict[str, object] | Iterable[str]) -> None:
    print(json.dumps(given) if isinstance(given, dict) else "\n".join(given))


COMMAND = Command(
    summary="say which elements were never, twice or wrongly filled; from an element to its bytes and back",
    examples=(
        "loadscope coverage ./session",
        "loadscope coverage ./session --parameter qkv_proj --rank 1 --json",
        "loadscope coverage ./session --element 'model.layers.0.self_attn.qkv_proj.weight[3,17]'",
        "loadscope coverage ./session --bytes model.safetensors:1024-1032",
    ),
    add_arguments=_add_arguments,
    run=_run,
)
