"""What a file of `commands/` says about its verb."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """One verb: the constant COMMAND of `commands/<verb>.py`.

    `run` takes the parsed arguments and returns the exit code; it raises UserError for what a person can repair.
    """

    summary: str
    examples: tuple[str, ...]
    add_arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], int]
