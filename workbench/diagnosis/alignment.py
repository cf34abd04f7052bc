"""A launch reads a tensor from between two of the blocks that a device moves, the device being the one asked for."""

from __future__ import annotations

import re
from collections.abc import Iterator

from backends.devices.limits import LaunchLimits, Misaligned, misaligned
from workbench.diagnosis.case import Case
from workbench.diagnosis.finding import Finding, Rule

_TENSOR = re.compile(r"(?P<dtype>[a-z0-9_]+)\[(?P<sizes>[\d,]*)\]")
_FIELDS = ("name", "launcher", "module", "shapes", "strides", "alignments")


def _judge(case: Case) -> Iterator[Finding]:
    if not case.asked_limits or case.limits is None:
        return
    told: set[tuple[str, int, str]] = set()
    for position, _, _, _, _, rank, name, launcher, module, shapes, strides, alignments in case.session.rows(
        "kernel.launched", _FIELDS
    ):
        if launcher == "aten" or not alignments or len(shapes) != len(alignments):
            continue
        steps = [_steps(shape, stride) for shape, stride in zip(shapes, strides, strict=True)]
        for one in misaligned(case.limits, alignments, steps):
            # A single number is read by itself wherever it stands.
            if steps[one.argument] and (name, one.argument, one.part) not in told:
                told.add((name, one.argument, one.part))
                yield _finding(case, case.limits, position, rank, (name, module, shapes[one.argument]), one)


def _steps(shape: str, stride: str) -> tuple[int, ...]:
    """Bytes between neighbours of each dimension that is longer than one; () for what cannot be read."""
    found = _TENSOR.fullmatch(shape)
    if found is None or not stride:
        return ()
    size = element_bytes(found["dtype"])
    sizes, strides = _numbers(found["sizes"]), _numbers(stride.strip("[]"))
    return tuple(step * size for count, step in zip(sizes, strides, strict=True) if count > 1)


def element_bytes(dtype: str) -> int:
    """`bfloat16` → 2, `float8_e4m3fn` → 1, `bool` → 1: the bits are in the name."""
    bits = re.search(r"\d+", dtype)
    return max(1, int(bits.group()) // 8) if bits else 1


def _numbers(text: str) -> list[int]:
    return [int(one) for one in text.split(",") if one]


def _finding(
    case: Case, limits: LaunchLimits, position: int, rank: int, launch: tuple[str, str, str], one: Misaligned
) -> Finding:
    name, module, shape = launch
    where = f"tensor {one.argument + 1}, {shape},"
    if one.part == "tensor":
        says = f"{where} begins at a multiple of {one.bytes_} bytes in its storage"
        remedy = "Give the kernel a tensor of its own (clone) or an offset that is a multiple of the block."
    else:
        says = f"{where} has rows {one.bytes_:,} bytes apart"
        remedy = "Pad the rows to whole blocks, or hand on a contiguous tensor."
    return Finding(
        class_=RULE.class_,
        severity="note",
        title=f"{name}: {one.part} off the {limits.alignment_bytes}-byte blocks of {limits.family}",
        sentence=f"{name}: {says}; {limits.family} moves {limits.alignment_bytes} bytes at once and pads the rest.",
        remedy=remedy,
        module=module or None,
        rank=rank if rank >= 0 else None,
        evidence=(case.evidence(position, "launch", f"{name}: {says}"),),
    )


RULE = Rule("kernel/alignment", _judge)
