"""What this machine has, as the lines that doctor prints: devices, kernels, quantization methods, architectures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

WIDTH = 20
MOST_WORDS = 96
Facts = Mapping[str, Any]


def lines(found: Facts) -> list[str]:
    """The whole text, a section after a blank line each."""
    usable = [device["name"] for device in found["devices"] if device["is_here"]]
    sections = (
        ("devices", [line for one in found["devices"] for line in _device(one)]),
        ("kernels", _kernels(found, usable)),
        ("methods", [line for one in _by_name(found["methods"]) for line in _method(one, usable)]),
        ("architectures", [_row(True, one["name"], ", ".join(one["classes"])) for one in found["architectures"]]),
    )
    return [text for title, rows in sections for text in ("", title, *rows)]


def _row(is_good: bool, name: str, text: str) -> str:
    return f"{'•' if is_good else '·'} {name:<{WIDTH}} {text}"


def _more(text: str) -> str:
    return f"  {'':<{WIDTH}} {text}"


def _device(device: Facts) -> list[str]:
    if not device["is_here"]:
        return [_row(False, device["name"], f"not here: {device['why_not']}")]
    memory = device["total_bytes"]
    facts = [
        device["note"],
        f"{device['free_bytes'] / 2**30:.1f} of {memory / 2**30:.1f} GiB free" if memory else "",
        f"grid product at most {device['max_grid_product']:,}" if device["max_grid_product"] else "",
        f"no {', '.join(_families(device['missing_dtypes']))}" if device["missing_dtypes"] else "",
    ]
    return [_row(True, device["name"], "; ".join(filter(None, facts)) or "always there")]


def _families(dtypes: Iterable[str]) -> list[str]:
    """float8_e4m3fn and float8_e5m2 are both "float8"."""
    return sorted({name.partition("_")[0] for name in dtypes})


def _kernels(found: Facts, usable: Sequence[str]) -> list[str]:
    """Each kind with its operations, where it runs, and why not where a device would prefer it."""
    out = []
    operations = found["kernels"]
    for kind in sorted({kind for one in operations for kind in one["kinds"]}):
        has = [one["name"] for one in operations if kind in one["kinds"]]
        runs = [device for device in usable if any(one["chosen"].get(device) == kind for one in operations)]
        where = f"taken on {', '.join(runs)}" if runs else "taken on no device that is here"
        out.append(_row(bool(runs), kind, f"{len(has)} of {len(operations)} operations, {where}"))
        out += [_more(text) for text in _wrapped(has) if len(has) < len(operations)]
        out += [_more(f"not on {device}: {reason}") for device, reason in _refusals(found["devices"], kind, usable)]
    return out


def _refusals(devices: Iterable[Facts], kind: str, usable: Sequence[str]) -> list[tuple[str, str]]:
    found = []
    for device in devices:
        reason = next((one["why_not"] for one in device["kinds"] if one["name"] == kind), None)
        if reason and device["name"] in usable and not device["note"]:
            found.append((device["name"], reason))
    return found


def _by_name(methods: Iterable[Facts]) -> list[list[Facts]]:
    grouped: dict[str, list[Facts]] = {}
    for one in methods:
        grouped.setdefault(one["name"], []).append(one)
    return list(grouped.values())


def _method(formats: Sequence[Facts], usable: Sequence[str]) -> list[str]:
    words = ", ".join(one["format"] for one in formats if one["format"])
    alike = {tuple(one["why_not"].items()) for one in formats}
    out = [_row(True, formats[0]["name"], words or "on every device")]
    for one in formats if len(alike) > 1 else formats[:1]:
        refused = {device: why for device, why in one["why_not"].items() if device in usable}
        what = f"{one['format']} " if len(alike) > 1 else ""
        out += [_more(f"{what}not on {device}, which {why}") for device, why in refused.items()]
    return out


def _wrapped(words: Sequence[str]) -> list[str]:
    out = [""]
    for word in words:
        if len(out[-1]) + len(word) > MOST_WORDS:
            out.append("")
        out[-1] += f"{', ' if out[-1] else ''}{word}"
    return out
