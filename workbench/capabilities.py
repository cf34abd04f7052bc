"""What the embedded engine has on this machine: `python -m workbench.capabilities` prints it as one JSON object.

It runs in a process of its own, because asking a device or a kernel imports torch and the libraries behind it.
"""

from __future__ import annotations

import ast
import importlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path

import torch

from backends.devices import placement
from backends.devices.contract import Device
from backends.native import kernels, registry
from backends.native.errors import NativeError
from backends.native.kernels.choice import KINDS, REFERENCE, kinds_on, why_not

Json = dict[str, object]


def capabilities() -> Json:
    """Devices, kinds of kernels, operations, quantization methods and architectures, with the reasons for what is not.

    Devices are asked before any of them is started: a simulated one takes the name of the real one.
    """
    known = {name: placement.device_named(name) for name in placement.modules()}
    reasons = {name: device.why_not() for name, device in known.items()}
    devices = [_device(name, device, reasons[name]) for name, device in known.items()]
    usable = {name: device for name, device in known.items() if reasons[name] is None}
    return {
        "devices": devices,
        "kernels": [_operation(name, kinds, usable) for name, kinds in operations().items()],
        "methods": _methods(known),
        "architectures": [
            {"name": stem, "classes": list(names)}
            for stem, names in registry.declared("models", "ARCHITECTURES").items()
        ],
    }


def _device(name: str, device: Device, reason: str | None) -> Json:
    kinds = [{"name": kind, "why_not": reason or _kind_refused(kind, device)} for kind in KINDS]
    said: Json = {
        "name": name,
        "is_here": reason is None,
        "why_not": reason,
        "note": device.note,
        "count": 0 if reason else device.count(),
        "max_grid_product": device.limits.max_grid_product,
        "max_grid": list(device.limits.max_grid),
        "missing_dtypes": sorted(str(dtype).removeprefix("torch.") for dtype in device.missing_dtypes),
        "prefers": [*device.kernel_kinds, REFERENCE],
        "kinds": kinds,
    }
    if reason is None:
        memory = device.memory(0)
        said |= {"free_bytes": memory.free_bytes, "total_bytes": memory.total_bytes}
    return said


def _kind_refused(kind: str, device: Device) -> str | None:
    try:
        device.start()
        return why_not(kind, device.torch_type)
    except (ImportError, OSError, RuntimeError, NativeError) as error:
        return str(error).splitlines()[0]


def operations() -> Mapping[str, list[str]]:
    """Every operation of the engine and the kinds of kernels that have it, the reference last.

    An operation is a file of the reference that defines a function of the file's name.
    """
    folder = Path(kernels.__file__).parent
    held = {kind: {path.stem for path in (folder / kind).glob("[!_]*.py") if _defines_itself(path)} for kind in KINDS}
    faster = [kind for kind in KINDS if kind != REFERENCE]
    return {
        op: [*(kind for kind in faster if op in held[kind]), REFERENCE]
        for op in sorted(held[REFERENCE])
        if _is_operator(folder / REFERENCE / f"{op}.py") or any(op in held[kind] for kind in faster)
    }


def _functions(path: Path) -> dict[str, ast.FunctionDef]:
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return {node.name: node for node in body if isinstance(node, ast.FunctionDef)}


def _defines_itself(path: Path) -> bool:
    return path.stem in _functions(path)


def _is_operator(path: Path) -> bool:
    return bool(_functions(path)[path.stem].decorator_list)


def _operation(name: str, kinds: list[str], usable: Mapping[str, Device]) -> Json:
    chosen = {device: _chosen(kinds, one) for device, one in usable.items()}
    return {"name": name, "kinds": kinds, "chosen": chosen}


def _chosen(kinds: list[str], device: Device) -> str:
    runnable: tuple[str, ...] = kinds_on(device.torch_type, device.kernel_kinds)
    return next(kind for kind in (*runnable, REFERENCE) if kind in kinds)


def _methods(known: Mapping[str, Device]) -> list[Json]:
    out: list[Json] = []
    for stem, names in registry.declared("quantization", "QUANT_METHODS").items():
        module = importlib.import_module(f"{registry.__package__}.quantization.{stem}")
        examples: Mapping[str, Mapping[str, object]] = getattr(module, "EXAMPLES", {"": {}})
        for words, fields in examples.items():
            dtypes = _dtypes({"quant_method": names[0], **fields})
            refused = {name: sorted(str(d).removeprefix("torch.") for d in dtypes & device.missing_dtypes)
                       for name, device in known.items()}  # fmt: skip
            out.append(
                {
                    "name": stem,
                    "format": words,
                    "quant_methods": [name for name in names if name is not None],
                    "devices": [name for name, missing in refused.items() if not missing],
                    "why_not": {name: f"has no {', '.join(missing)}" for name, missing in refused.items() if missing},
                }
            )
    return out


def _dtypes(fields: Mapping[str, object]) -> frozenset[torch.dtype]:
    """What the format stores; nothing that a device could lack where only a file's header can tell."""
    try:
        return registry.config_from_fields(fields, {}, {}).dtypes()
    except NativeError:
        return frozenset()


if __name__ == "__main__":
    json.dump(capabilities(), sys.stdout)
