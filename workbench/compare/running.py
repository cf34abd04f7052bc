"""Runs the two hosts of a comparison, one after the other, each as a recorded session of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sessions.manifest import Outcome
from workbench import launching
from workbench.compare.comparison import REFERENCE_FOLDER
from workbench.errors import HOST_FAILED, INCOMPLETE, USAGE, UserError
from workbench.host import Host
from workbench.launching import Load, Watch
from workbench.preflight.check import check
from workbench.preflight.config import ModelFacts

LEVEL = "tensors"


@dataclass(frozen=True)
class Run:
    """One side as it was asked for; `dtype` "" is the checkpoint's own."""

    model: Path
    engine: str
    tp: int
    device: str
    dtype: str

    def words(self) -> tuple[str, ...]:
        """What the engine's own command line needs to hear. UserError for an engine that is not told a dtype so."""
        if not self.dtype:
            return ()
        if not launching.engine_named(self.engine).takes_dtype:
            raise UserError(
                f"--dtype cannot be given to the engine {self.engine}: its adapter does not say how",
                "compare checkpoints of the dtypes you mean, or use the embedded engine",
            )
        return ("--dtype", self.dtype)


@dataclass(frozen=True)
class Hosts:
    """Both hosts, ready to start: the candidate's session holds that of the reference."""

    reference: Host
    candidate: Host


def hosts_of(reference: Run, candidate: Run, tokens: tuple[int, ...], watch: Watch) -> Hosts:
    """Check both sides and make their session folders; nothing runs yet. Raises UserError."""
    facts = [check(run.model, launching.engine_named(run.engine), run.tp) for run in (reference, candidate)]
    for run, said in zip((reference, candidate), facts, strict=True):
        _require_vocabulary(run, said, tokens)
    second = _host(candidate, facts[1], tokens, watch)
    inner = dataclasses.replace(watch, output=str(second.folder / REFERENCE_FOLDER))
    return Hosts(_host(reference, facts[0], tokens, inner), second)


def _host(run: Run, facts: ModelFacts, tokens: tuple[int, ...], watch: Watch) -> Host:
    load = Load(
        model=run.model,
        engine=run.engine,
        tp=run.tp,
        device=run.device,
        prompt_ids=tokens,
        max_new_tokens=1,
        extra=run.words(),
    )
    host = launching.host_of_load(load, facts, dataclasses.replace(watch, level=LEVEL))
    host.manifest = dataclasses.replace(host.manifest, extra={**host.manifest.extra, "dtype": run.dtype})
    return host


def _require_vocabulary(run: Run, facts: ModelFacts, tokens: tuple[int, ...]) -> None:
    text = facts.fields.get("text_config")
    parts = [part for part in (facts.fields, text) if isinstance(part, dict)]
    size = next((part["vocab_size"] for part in parts if isinstance(part.get("vocab_size"), int)), None)
    beyond = [token for token in tokens if token < 0 or (size is not None and token >= size)]
    if beyond:
        raise UserError(
            f"token {beyond[0]} is not in the vocabulary of {run.model}, which has {size:,} tokens",
            "give token ids that both checkpoints have, with --tokens",
            USAGE,
        )


def run_both(hosts: Hosts, begin: Callable[[str], None]) -> None:
    """Run the reference, then the candidate; `begin` is told the name of each.

    Raises UserError for a host that fails (exit 4) or is interrupted (exit 5); what was recorded stays readable.
    """
    for name, host in (("reference", hosts.reference), ("candidate", hosts.candidate)):
        begin(name)
        host.start()
        _require_ok(name, host, host.wait())


def _require_ok(name: str, host: Host, outcome: Outcome) -> None:
    if outcome.state == "ok":
        return
    if outcome.state == "interrupted":
        raise UserError(
            f"interrupted while the {name} ran; what was recorded until then is readable",
            f"loadscope open {host.folder}",
            INCOMPLETE,
        )
    how = f"was killed by {outcome.signal}" if outcome.signal else f"failed with exit code {outcome.exit_code}"
    raise UserError(
        f"the host of the {name}, {host.manifest.name}, {how}{_last_words(host.folder)}",
        f"loadscope diagnose {host.folder}",
        HOST_FAILED,
    )


def _last_words(folder: Path) -> str:
    from sessions.session import Session
    from workbench.ending import last_log_line

    session = Session.open(folder)
    try:
        said = last_log_line(session)
    finally:
        session.close()
    return f": {said}" if said else ""
