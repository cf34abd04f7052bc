"""Numbers of a profile as people read them, in few characters."""

from __future__ import annotations


def _scaled(value: float, units: tuple[str, ...], step: float = 1000.0) -> str:
    sign, value = ("-" if value < 0 else ""), abs(value)
    for unit in units[:-1]:
        if value < step - 0.5:
            return f"{sign}{value:.0f} {unit}" if value >= 100 or unit == units[0] else f"{sign}{value:.3g} {unit}"
        value /= step
    return f"{sign}{value:,.3g} {units[-1]}" if value < 100 else f"{sign}{value:,.0f} {units[-1]}"


def duration(ns: float) -> str:
    """`3.84 ms`, `612 ms`, `1.2 s`."""
    if abs(ns) < 1000:
        return f"{ns:.0f} ns"
    return _scaled(ns / 1e3, ("µs", "ms", "s"))


def size(count: float) -> str:
    """Decimal: `768 B`, `18.9 MB`."""
    return _scaled(count, ("B", "kB", "MB", "GB", "TB"))


def grown(count: float) -> str:
    """A change: `+12.2 MB`, `-8 kB`; nothing for one that does not count."""
    return "" if abs(count) < 512 else f"+{size(count)}" if count > 0 else size(count)


def rate(bytes_per_s: float) -> str:
    """`4.1 GB/s`."""
    return f"{size(bytes_per_s)}/s"


def operations(flops: float) -> str:
    """`1.3 GFLOP`."""
    return _scaled(flops, ("FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP"))


def operations_rate(flops_per_s: float) -> str:
    """`95 GFLOP/s`."""
    return f"{operations(flops_per_s)}/s"


def percent(part: float) -> str:
    """`12 %`, `0.3 %`."""
    return f"{100 * part:.0f} %" if part >= 0.0995 else f"{100 * part:.1f} %"


def bar(part: float, width: int) -> str:
    """A line filled to a fraction, in half steps."""
    filled = max(0.0, min(1.0, part)) * width
    whole = int(filled + 1e-9)
    half = "╸" if filled - whole >= 0.5 else ""
    return ("━" * whole + half).ljust(width, "─")


def some(number: int, noun: str) -> str:
    """`1 call`, `412 calls`."""
    return f"{number:,} {noun if number == 1 else noun + ('es' if noun.endswith('s') else 's')}"
