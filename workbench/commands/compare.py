"""`loadscope compare`: run two checkpoints on one input and say where the candidate departs from its reference."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sessions.decisions import decisions
from sessions.session import Session
from workbench import arguments, launching
from workbench.command import Command
from workbench.compare.comparing import compare_sessions
from workbench.compare.running import Run, hosts_of, run_both
from workbench.compare.told import as_json, report
from workbench.compare.verdict import judge
from workbench.errors import CLEAN, FINDINGS, UserError
from workbench.launching import Watch

DTYPES = ("float32", "bfloat16", "float16")
Advance = Callable[[str, int, int], None]


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("reference", metavar="REFERENCE", help="folder of the checkpoint that is taken to be right")
    parser.add_argument("candidate", metavar="CANDIDATE", help="folder of the checkpoint to judge; may be the same")
    prompt = parser.add_mutually_exclusive_group()
    prompt.add_argument("--tokens", metavar="1,2,3", help="token ids that both run on (default: 1,2,3,4,5)")
    prompt.add_argument("--prompt", metavar="TEXT", help="the same in words, by the reference's tokenizer")
    parser.add_argument("--engine", help="who runs both (default: the embedded engine)")
    parser.add_argument("--reference-engine", metavar="NAME", help="who runs the reference, where it differs")
    parser.add_argument("--tp", type=int, default=1, metavar="N", help="tensor parallel size (default: 1)")
    parser.add_argument("--candidate-tp", type=int, metavar="N", help="that of the candidate, where it differs")
    parser.add_argument("--dtype", choices=DTYPES, help="dtype of what is not quantized (default: the checkpoint's)")
    parser.add_argument("--candidate-dtype", choices=DTYPES, help="that of the candidate, where it differs")
    parser.add_argument("--device", default="cpu", help="device that both run on (default: cpu)")
    parser.add_argument("--candidate-device", help="that of the candidate, where it differs")
    parser.add_argument(
        "-o", "--output", metavar="DIR", help="write both sessions and the comparison to this new folder"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="repeat what the hosts print on standard error")
    arguments.add_json(parser)


def _run(args: Namespace) -> int:
    engine = args.engine or launching.embedded_engine()
    sides = [Path(path).absolute() for path in (args.reference, args.candidate)]
    reference = Run(sides[0], args.reference_engine or engine, args.tp, args.device, args.dtype or "")
    candidate = Run(
        sides[1],
        engine,
        args.tp if args.candidate_tp is None else args.candidate_tp,
        args.candidate_device or args.device,
        args.candidate_dtype or args.dtype or "",
    )
    tokens = _tokens(args)
    hosts = hosts_of(reference, candidate, tokens, Watch(args.verb, output=args.output, echoes_log=args.verbose))
    folder = hosts.candidate.folder
    with _progress(is_quiet=args.json or args.verbose) as advance:
        run_both(hosts, lambda name: advance(name, 0, 0))
        comparison = compare_sessions(folder, tokens, advance)
    verdict = judge(comparison, contradictions=_contradictions(folder))
    code = FINDINGS if verdict.troubles else CLEAN
    if args.json:
        print(json.dumps(as_json(comparison, verdict, folder, args.verb, code), ensure_ascii=False))
    else:
        print("\n".join(report(comparison, verdict, folder)))
    return code


def _contradictions(folder: Path) -> frozenset[str]:
    session = Session.open(folder)
    try:
        return frozenset(one.module for one in decisions(session) if one.is_contradiction)
    finally:
        session.close()


def _tokens(args: Namespace) -> tuple[int, ...]:
    if args.prompt is not None:
        return _encoded(Path(args.reference), args.prompt)
    if args.tokens is None:
        return launching.PROMPT_IDS
    try:
        tokens = tuple(int(word) for word in args.tokens.split(",") if word.strip())
    except ValueError:
        tokens = ()
    if not tokens:
        raise UserError(f"--tokens {args.tokens!r} is not a list of numbers", "give token ids, such as --tokens 1,2,3")
    return tokens


def _encoded(model: Path, text: str) -> tuple[int, ...]:
    from backends.native.errors import NativeError
    from backends.native.tokenizer import read_tokenizer

    try:
        return tuple(read_tokenizer(model).encode(text))
    except NativeError as error:
        raise UserError(error.what, error.remedy.replace("--prompt-ids", "--tokens")) from error


@contextmanager
def _progress(*, is_quiet: bool) -> Iterator[Advance]:
    """A bar on standard error for each step; where that is no terminal, nothing."""
    if is_quiet or not sys.stderr.isatty():
        yield lambda _step, _done, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:12}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        tasks: dict[str, object] = {}

        def advance(step: str, done: int, total: int) -> None:
            for task in bar.tasks:
                if task.description != step and not task.finished and task.total is None:
                    bar.update(task.id, total=1, completed=1)
            if step not in tasks:
                tasks[step] = bar.add_task(step, total=total or None)
            bar.update(tasks[step], completed=done)  # type: ignore[arg-type]  # ids as rich made them

        yield advance


COMMAND = Command(
    summary="run two checkpoints on one input and say where the candidate departs",
    examples=(
        "loadscope compare ./model-bf16 ./model-fp8",
        "loadscope compare ./model ./model --candidate-tp 4",
        "loadscope compare ./model ./model --dtype float32 --candidate-dtype bfloat16 --json",
        'loadscope compare ./model-bf16 ./model-int4 --prompt "The capital of France is" -o ./comparison',
    ),
    add_arguments=_add_arguments,
    run=_run,
)
