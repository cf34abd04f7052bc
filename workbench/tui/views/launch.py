"""What is known of a kernel launch besides its shapes: strides, warps and registers, alignment, time on the device."""

from __future__ import annotations

from inspectors.probe.events import KernelLaunched
from workbench.tui.paint import Lines, cut, paint, said
from workbench.tui.views.view import fact
from workbench.tui.wording import microseconds

MOST = 6
ALIGNED_BYTES = 512


def launch_facts(body: KernelLaunched, width: int) -> Lines:
    """Lines for what was told; a device says the more the nearer it is."""
    lines: Lines = []
    for number, stride in enumerate(body.strides[:MOST]):
        start = body.alignments[number] if number < len(body.alignments) else -1
        at = f"  begins at a multiple of {start}" if 0 <= start < ALIGNED_BYTES else ""
        lines.append(cut(fact("" if number else "stride", said(stride + at)), width))
    counts = ((body.num_warps, "warps"), (body.num_stages, "stages"), (body.registers, "registers"))
    told = [f"{count} {name}" for count, name in counts if count >= 0]
    if told:
        lines.append(fact("with", ", ".join(told)))
    if body.spills >= 0:
        role = "w" if body.spills else "t"
        lines.append(fact("spills", f"{body.spills:,} registers", role))
    if body.shared_bytes >= 0:
        lines.append(fact("shared", f"{body.shared_bytes:,} bytes"))
    if body.device_ns >= 0:
        lines.append(paint("{m|device} $ µs", microseconds(body.device_ns)))
    return lines
