"""From two recorded sessions to a saved Comparison: opens what is needed, measures, writes."""

from __future__ import annotations

from pathlib import Path

from sessions.manifest import Manifest
from sessions.session import Session
from workbench.compare.capture import Side
from workbench.compare.comparison import REFERENCE_FOLDER, Comparison, SideFacts
from workbench.compare.measuring import Outputs, Progress, measured_weights
from workbench.compare.weights import Checkpoint, open_weights
from workbench.errors import FINDINGS, UserError


def compare_sessions(folder: Path, tokens: tuple[int, ...], progress: Progress) -> Comparison:
    """Compare the session in `folder` with its reference inside it, and save what was measured there.

    Raises UserError (exit 1) when nothing could be compared, (exit 5) for a checkpoint that cannot be read.
    """
    reference, candidate = Session.open(folder / REFERENCE_FOLDER), Session.open(folder)
    try:
        compared = _compared(Side.of(reference), Side.of(candidate), tokens, progress)
    finally:
        reference.close()
        candidate.close()
    compared.write(folder)
    return compared


def _compared(reference: Side, candidate: Side, tokens: tuple[int, ...], progress: Progress) -> Comparison:
    checkpoints = _checkpoints(reference.session.manifest, candidate.session.manifest)
    is_same = len(checkpoints) == 1
    pair = (checkpoints[0], checkpoints[-1])
    outputs, unpaired = Outputs(reference, candidate, pair).measured(progress)
    if not outputs:
        raise _nothing(reference, candidate)
    weights, more = ((), ()) if is_same else measured_weights((reference, candidate), pair, progress)
    return Comparison(
        reference=_facts(reference.session.manifest, REFERENCE_FOLDER),
        candidate=_facts(candidate.session.manifest, "."),
        tokens=tokens,
        outputs=outputs,
        weights=weights,
        unpaired=(*unpaired, *more),
        is_same_checkpoint=is_same,
    )


def _checkpoints(reference: Manifest, candidate: Manifest) -> tuple[Checkpoint, ...]:
    folders = dict.fromkeys(Path(one.model).resolve() for one in (reference, candidate))
    return tuple(open_weights(folder) for folder in folders)


def _facts(manifest: Manifest, folder: str) -> SideFacts:
    return SideFacts(
        folder=folder,
        name=manifest.name,
        model=manifest.model,
        format=manifest.format,
        architecture=manifest.architecture,
        tp=manifest.tp,
        device=manifest.device,
        dtype=str(manifest.extra.get("dtype", "")),
        engine=manifest.engine,
    )


def _nothing(reference: Side, candidate: Side) -> UserError:
    for name, side in (("reference", reference), ("candidate", candidate)):
        if not side.modules:
            return UserError(
                f"nothing compared: no output of a module was kept of the {name} {side.session.manifest.name}",
                f"loadscope diagnose {side.session.path}",
                FINDINGS,
            )
    told = [f"{side.session.manifest.architecture} with {len(side.modules)} modules" for side in (reference, candidate)]
    return UserError(
        f"nothing compared: no module of {told[1]} has a partner of its name and shape in {told[0]}",
        "compare two checkpoints of one model, such as a quantized one with the one it was made from",
        FINDINGS,
    )
