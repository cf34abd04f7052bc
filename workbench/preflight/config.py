"""What config.json says about a checkpoint, read without an engine."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from inspectors.probe import ggufheader
from workbench.errors import INCOMPLETE, UserError

MOST_TYPES = 3
PLAIN_TYPES = ("F32", "F16", "BF16", "F64")
AS_PUBLISHED = "compare with the config.json the model was published with"


@dataclass(frozen=True)
class ModelFacts:
    """What screens and manifest say about a model; `fields` is its config.json."""

    architecture: str
    format: str
    fields: Mapping[str, object]


def read_facts(folder: Path) -> ModelFacts:
    """Read config.json of a checkpoint folder, or the header of a checkpoint that says everything in its one file.

    Raises UserError: exit 2 when the folder is not there, exit 5 when config.json is missing or malformed.
    """
    own = _own_header(folder)
    if own is not None:
        return own
    if not folder.is_dir():
        found = "is a file, not a folder" if folder.exists() else "does not exist"
        raise UserError(f"{folder} {found}", "give the folder that holds config.json and the safetensors files")
    path = folder / "config.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _unreadable(
            f"{path} cannot be read: {error.strerror}", "give the folder of a complete checkpoint"
        ) from error
    except ValueError as error:
        raise _unreadable(f"{path} is not JSON: {error}", AS_PUBLISHED) from error
    if not isinstance(content, dict):
        raise _unreadable(f"{path} holds a {type(content).__name__}, expected an object", AS_PUBLISHED)
    names = content.get("architectures")
    if not isinstance(names, list) or len(names) != 1 or not isinstance(names[0], str):
        raise _unreadable(f"{path}: architectures is {names!r}, expected a list with one name", AS_PUBLISHED)
    return ModelFacts(names[0], format_of(content, _described_beside(folder)), content)


def _own_header(place: Path) -> ModelFacts | None:
    """The facts of a GGUF file, or of a folder with nothing but such files; None for another checkpoint."""
    if not ggufheader.files_of(place) or (place / "config.json").exists():
        return None
    from backends.native.config import read_config
    from backends.native.errors import NativeError

    try:
        config = read_config(place)
    except NativeError as error:
        raise _unreadable(error.what.rstrip("."), error.remedy) from error
    return ModelFacts(config.architecture, format_of(config.fields), config.fields)


def _described_beside(folder: Path) -> Mapping[str, object] | None:
    """What a file on quantization beside config.json says; None without one, or where it is no object."""
    for path in sorted(folder.glob("*quant*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # the engine complains about it better than a name for the header could
        if isinstance(content, dict):
            return content
    return None


def format_of(fields: Mapping[str, object], beside: Mapping[str, object] | None = None) -> str:
    """The checkpoint's format in a few words, such as "fp8 block 128×128" or "bfloat16".

    `beside` is what a file of its own says about quantization where config.json says nothing.
    """
    quantization = fields.get("quantization_config") or beside
    if not isinstance(quantization, Mapping):
        parts = [part for part in (fields, fields.get("text_config")) if isinstance(part, Mapping)]
        return str(next((part[key] for part in parts for key in ("dtype", "torch_dtype") if part.get(key)), "float32"))
    inner = quantization.get("quantization")
    said = {**quantization, **inner} if isinstance(inner, Mapping) else quantization
    method = str(said.get("quant_method") or "")
    words = _types(said) or _algorithm(said) or _blocks(said) or _groups(said) or _bits(said)
    return f"{words}, {method}" if words and method and method not in words else words or method or "quantized"


def _types(said: Mapping[str, object]) -> str:
    """The types of a file's tensors, the most frequent first, plain ones last: "Q4_K Q6_K F32"."""
    types = said.get("tensor_types")
    if not isinstance(types, Mapping):
        return ""
    names = [str(name) for name, _ in Counter(types.values()).most_common()]
    names.sort(key=lambda name: name in PLAIN_TYPES)
    return " ".join(names[:MOST_TYPES]) + (" …" if len(names) > MOST_TYPES else "")


def _algorithm(said: Mapping[str, object]) -> str:
    return str(said.get("quant_algo") or said.get("model_quant_type") or "").lower().replace("_", " ")


def _blocks(said: Mapping[str, object]) -> str:
    block, method = said.get("weight_block_size"), str(said.get("quant_method") or "quantized")
    if isinstance(block, list) and block:
        return f"{method} block {'×'.join(str(size) for size in block)}"
    return f"{method} per tensor, {said['activation_scheme']}" if said.get("activation_scheme") else ""


def _groups(said: Mapping[str, object]) -> str:
    """Of the first group: "int8 per channel", "float4 per group of 16"."""
    groups = said.get("config_groups")
    first = next(iter(groups.values()), None) if isinstance(groups, Mapping) else None
    weights = first.get("weights") if isinstance(first, Mapping) else None
    if not isinstance(weights, Mapping):
        return ""
    size = f" of {weights['group_size']}" if weights.get("group_size") else ""
    strategy = str(weights.get("strategy", "tensor")).replace("tensor_group", "group")
    return f"{weights.get('type', 'int')}{weights.get('num_bits', '')} per {strategy}{size}"


def _bits(said: Mapping[str, object]) -> str:
    bits, size = said.get("bits"), said.get("group_size")
    return f"int{bits} in groups of {size}" if bits and size else ""


def _unreadable(what: str, try_: str) -> UserError:
    return UserError(what, try_, INCOMPLETE)
