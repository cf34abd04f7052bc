"""What config.json says about a checkpoint, read without an engine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from workbench.errors import INCOMPLETE, UserError

AS_PUBLISHED = "compare with the config.json the model was published with"


@dataclass(frozen=True)
class ModelFacts:
    """What screens and manifest say about a model; `fields` is its config.json."""

    architecture: str
    format: str
    fields: Mapping[str, object]


def read_facts(folder: Path) -> ModelFacts:
    """Read config.json of a checkpoint folder.

    Raises UserError: exit 2 when the folder is not there, exit 5 when config.json is missing or malformed.
    """
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
    return ModelFacts(names[0], format_of(content), content)


def format_of(fields: Mapping[str, object]) -> str:
    """The checkpoint's format in a few words, such as "fp8 block 128×128" or "bfloat16"."""
    quantization = fields.get("quantization_config")
    if not isinstance(quantization, Mapping):
        parts = [part for part in (fields, fields.get("text_config")) if isinstance(part, Mapping)]
        return str(next((part[key] for part in parts for key in ("dtype", "torch_dtype") if part.get(key)), "float32"))
    method = str(quantization.get("quant_method", "quantized"))
    block = quantization.get("weight_block_size")
    return f"{method} block {'×'.join(str(size) for size in block)}" if isinstance(block, list) and block else method


def _unreadable(what: str, try_: str) -> UserError:
    return UserError(what, try_, INCOMPLETE)
