"""Whether what a host did is kept as one file to carry away: on every end, or when it failed."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import dataclass
from pathlib import Path

from sessions.bundle.layout import DEFAULT_MAX_BYTES, SUFFIX
from sessions.bundle.packing import Contents, pack
from sessions.manifest import Outcome
from workbench.errors import UserError
from workbench.failing import how_it_ended

FAILURE, ALWAYS = "failure", "always"


def add_keeping(parser: ArgumentParser) -> None:
    """`--on`, `--timeout` and what a bundle holds."""
    parser.add_argument(
        "--on", choices=(FAILURE, ALWAYS), help="keep the session as one file to carry away: a bundle, secrets removed"
    )
    parser.add_argument("--bundle", metavar="FILE", help=f"where the bundle goes (default: ./SESSION{SUFFIX})")
    parser.add_argument(
        "--bundle-bytes", type=int, default=DEFAULT_MAX_BYTES, metavar="N", help="how large a bundle may be"
    )
    parser.add_argument("--bundle-tensors", action="store_true", help="put kept tensors into the bundle, too")
    parser.add_argument(
        "--timeout", type=float, metavar="SECONDS", help="end a host that takes longer; what it was doing is kept"
    )


@dataclass(frozen=True)
class Bundle:
    """A bundle that was made."""

    path: Path
    size_bytes: int
    contents: Contents

    def in_words(self) -> str:
        """`run.loadscope.zip (1.2 MB, 2 secrets blotted out, without 12,000 kernel.launched)`."""
        said = [f"{self.size_bytes / 1e6:.1f} MB"]
        if self.contents.redacted:
            said.append(f"{self.contents.redacted} secret{'s' * (self.contents.redacted != 1)} blotted out")
        said += [f"without {count:,} {kind}" for kind, count in self.contents.left_out.items()]
        return f"{self.path} ({', '.join(said)})"


def keep(folder: Path, outcome: Outcome, args: Namespace) -> Bundle | None:
    """Make the bundle that was asked for; None when none was, or when the host ended well and only failures count."""
    wanted: str | None = getattr(args, "on", None)
    if wanted is None or (wanted == FAILURE and outcome.state == "ok"):
        return None
    target = Path(args.bundle or f"{folder.name}{SUFFIX}").absolute()
    try:
        contents = pack(
            folder, target, why=_why(outcome), max_bytes=args.bundle_bytes, with_tensors=args.bundle_tensors
        )
        return Bundle(target, target.stat().st_size, contents)
    except OSError as error:
        raise UserError(
            f"the bundle cannot be written to {target}: {error.strerror or error}",
            f"name another file with --bundle; the session itself is in {folder}",
        ) from error


def _why(outcome: Outcome) -> str:
    return "asked for" if outcome.state == "ok" else how_it_ended(outcome)
