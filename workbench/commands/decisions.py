"""`loadscope decisions`: say of each module why it got its quantization method and its kernels."""

from __future__ import annotations

import difflib
import json
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from sessions.decisions import by_ranks, decisions
from sessions.kernels import chosen_kernels
from sessions.session import Session
from workbench import arguments, places
from workbench.command import Command
from workbench.decisiontext import OfNone, Told, as_json, lines
from workbench.errors import CLEAN, FINDINGS, INCOMPLETE, UserError


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("session", metavar="SESSION", help="a session folder or a bundle")
    parser.add_argument(
        "module", metavar="MODULE", nargs="?", default="", help="a module, all inside it, or a pattern such as *.mlp.*"
    )
    arguments.add_json(parser)


def _run(args: Namespace) -> int:
    session = Session.open(places.session_folder(args.session))
    try:
        every = by_ranks(decisions(session))
        found = [one for one in every if names(args.module, one[0].module)]
        others = [one for one in _without_method(session) if names(args.module, one[0])]
        if not found and not others:
            raise _nothing(session, args.module)
        code = FINDINGS if any(view.is_contradiction for view, _ in found) else CLEAN
        if args.json:
            print(json.dumps(_said(args.verb, code, session, found, others), ensure_ascii=False))
        else:
            ranks = {rank for _, of_ranks in every for rank in of_ranks}
            print("\n".join(lines(found, others, len(ranks))))
    finally:
        session.close()
    return code


def names(asked: str, module: str) -> bool:
    """Whether `asked` is the module, one around it, a pattern that it matches, or empty."""
    return not asked or module == asked or module.startswith(f"{asked}.") or fnmatchcase(module, asked)


def _without_method(session: Session) -> list[OfNone]:
    """Modules that chose kernels but have no weights to quantize: norms, attention, activations."""
    known = {(view.module, view.rank) for view in decisions(session)}
    alike: dict[tuple[object, ...], OfNone] = {}
    for (module, rank), kernels in chosen_kernels(session).items():
        if (module, rank) not in known:
            key = (module, *((one.op, one.kernel) for one in kernels))
            _, ranks, first = alike.get(key, (module, (), kernels))
            alike[key] = (module, (*ranks, rank), first)
    return list(alike.values())


def _nothing(session: Session, module: str) -> UserError:
    known = _names(session)
    if not known:
        return UserError(
            f"{session.folder} holds no decisions: the load ended before a layer asked its quantization config",
            f"see how far it came with: loadscope open {session.folder}",
            INCOMPLETE,
        )
    near = difflib.get_close_matches(module, known, n=1, cutoff=0.3)
    return UserError(f"no decision was recorded for {module}", f"did you mean {near[0] if near else known[0]}?")


def _names(session: Session) -> list[str]:
    modules: Iterable[str] = (*(view.module for view in decisions(session)), *(m for m, _ in chosen_kernels(session)))
    return list(dict.fromkeys(modules))


def _said(verb: str, code: int, session: Session, found: Sequence[Told], others: Sequence[OfNone]) -> dict[str, object]:
    return {
        "schema": 1,
        "verb": verb,
        "outcome": "findings" if code else "ok",
        "exit_code": code,
        "session": str(session.folder),
        "decisions": as_json(found, others),
    }


COMMAND = Command(
    summary="say of each module why it got its quantization method and its kernels",
    examples=(
        "loadscope decisions ./session",
        "loadscope decisions ./session model.layers.0.mlp",
        "loadscope decisions ./session '*.in_proj_*' --json      # exit code 1: built otherwise than stored",
    ),
    add_arguments=_add_arguments,
    run=_run,
)
