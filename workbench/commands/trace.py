"""`loadscope trace`: load a checkpoint with an engine and record everything it does."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from inspectors.probe.tracepoint import Engine
from workbench import arguments, hostpython, launching
from workbench.command import Command
from workbench.ending import follow
from workbench.errors import UserError
from workbench.preflight.check import check


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="folder with config.json and safetensors files, or a GGUF file")
    parser.add_argument("--engine", help="who loads it (see loadscope doctor; default: the embedded engine)")
    parser.add_argument("--tp", type=int, default=1, metavar="N", help="tensor parallel size (default: 1)")
    parser.add_argument(
        "--python", metavar="PATH", help="the Python of the engine's own environment (default: this one)"
    )
    parser.add_argument("--rank", default="all", metavar="R|all", help="load this rank alone, where the engine can")
    arguments.add_device(parser)
    parser.add_argument("--prompt-ids", metavar="1,2,3", help="token ids of the prompt to run after the load")
    parser.add_argument(
        "--max-new-tokens", type=int, default=launching.NEW_TOKENS, metavar="N", help="tokens to generate"
    )
    arguments.add_watching(parser)
    arguments.add_limits(parser)
    arguments.add_stepping(parser)
    arguments.add_fail_on(parser)
    arguments.add_json(parser)
    parser.add_argument("--no-tui", action="store_true", help="do not open the screens, not even with --paused")
    parser.epilog = f"{parser.epilog}\n\nWords after -- are given to the engine as they are."


def _run(args: Namespace) -> int:
    model = Path(args.model).absolute()
    name = args.engine or launching.embedded_engine()
    engine = launching.engine_named(name)
    python = _python_of(engine, args)
    facts = check(model, engine, args.tp)
    load = launching.Load(
        model=model,
        engine=name,
        tp=args.tp,
        device=args.device,
        prompt_ids=_prompt_ids(args.prompt_ids),
        max_new_tokens=args.max_new_tokens,
        extra=tuple(args.host_command),
        python=python,
        rank=args.rank,
    )
    args.no_tui = args.no_tui or not (args.paused or args.breakpoints)
    return follow(launching.host_of_load(load, facts, arguments.watch_of(args)), args)


def _python_of(engine: Engine, args: Namespace) -> str:
    """The engine's Python; raises UserError (exit 2) for one that is not there or does not have the engine."""
    if args.rank != "all" and not (args.rank.isdigit() and int(args.rank) < max(1, args.tp)):
        raise UserError(f"--rank {args.rank}: with --tp {args.tp} a rank is 0 to {args.tp - 1}", "or give --rank all")
    if engine.is_embedded:
        if args.python or args.rank != "all":
            raise UserError(
                f"the engine {engine.name} runs in this Python and loads all its ranks together",
                "leave --python and --rank away, or name another engine with --engine",
            )
        return ""
    python = args.python or sys.executable
    hostpython.installed(python, engine)
    return python


def _prompt_ids(text: str | None) -> tuple[int, ...]:
    if text is None:
        return launching.PROMPT_IDS
    try:
        return tuple(int(word) for word in text.split(",") if word.strip())
    except ValueError as error:
        raise UserError(
            f"--prompt-ids {text!r} is not a list of numbers", "give token ids, such as --prompt-ids 1,2,3"
        ) from error


COMMAND = Command(
    summary="load a checkpoint with an engine and record it, without screens",
    examples=(
        "loadscope trace ./model --tp 4",
        "loadscope trace ./model --tp 4 --level values -o ./session --json",
        "loadscope trace ./model --paused      # step through the load on a terminal",
        "loadscope trace ./model --limits ascend-910b     # judge every launch by a device that is not here",
        "loadscope trace ./model --engine native -- --load-only",
        "loadscope trace ./model --device null -- --load-only      # names, shapes and decisions, no values",
    ),
    add_arguments=_add_arguments,
    run=_run,
)
