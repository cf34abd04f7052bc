"""config.json as checked values: every field that is used has the type it must have, or an error names it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import torch

from backends.native.checkpoint.gguf_files import gguf_files
from backends.native.errors import ConfigError

T = TypeVar("T")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
AS_PUBLISHED = "compare with the config.json the model was published with"


@dataclass(frozen=True)
class ModelConfig:
    """What every architecture shares; its own fields are read from `fields` by its plugin."""

    architecture: str
    dtype: torch.dtype
    fields: Mapping[str, object]
    quantization: Mapping[str, object] | None

    @classmethod
    def from_fields(cls, fields: Mapping[str, object]) -> ModelConfig:
        """Take the fields of a config.json; raises ConfigError for the first wrong one."""
        architectures = checked_value(fields.get("architectures"), tuple[str, ...], "architectures")
        quantization = fields.get("quantization_config")
        if quantization is not None and not isinstance(quantization, dict):
            raise ConfigError(
                f"config.json: quantization_config is {quantization!r}, expected an object.", AS_PUBLISHED
            )
        if len(architectures) != 1:
            raise ConfigError(f"config.json: architectures is {list(architectures)}, expected one name.", AS_PUBLISHED)
        parts = (fields, text_fields(fields))
        name = next((part[key] for part in parts for key in ("dtype", "torch_dtype") if part.get(key)), "float32")
        return cls(architectures[0], dtype_named(str(name)), fields, quantization)


def text_fields(fields: Mapping[str, object]) -> Mapping[str, object]:
    """The fields of the language model: those under text_config where there are other modalities; raises ConfigError.

    Whether embeddings are tied is said outside it.
    """
    text = fields.get("text_config")
    if text is None:
        return fields
    if not isinstance(text, dict):
        raise ConfigError(f"config.json: text_config is {text!r}, expected an object.", AS_PUBLISHED)
    tied = fields.get("tie_word_embeddings")
    return text if tied is None else text | {"tie_word_embeddings": tied}


def dtype_named(name: str) -> torch.dtype:
    """The torch dtype of that name; raises ConfigError for one the stack does not compute in."""
    if name not in DTYPES:
        raise ConfigError(
            f"dtype {name!r} is not supported, expected one of {', '.join(DTYPES)}.",
            "set dtype in config.json, or pass --dtype",
        )
    return DTYPES[name]


def read_config(folder: str | Path) -> ModelConfig:
    """Read config.json of a checkpoint folder, or the metadata of GGUF files; raises ConfigError or CheckpointError."""
    from backends.native.checkpoint.gguf_config import gguf_fields

    files = gguf_files(folder)
    if files:
        return ModelConfig.from_fields(gguf_fields(files))
    return ModelConfig.from_fields(read_object(Path(folder) / "config.json"))


def read_object(path: Path) -> dict[str, object]:
    """The JSON object in a file; raises ConfigError when it is missing or malformed."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}.", "pass the folder of a complete checkpoint"
        ) from error
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}.", AS_PUBLISHED) from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds a {type(content).__name__}, expected an object.", AS_PUBLISHED)
    return content


def end_token_ids(folder: str | Path) -> tuple[int, ...]:
    """The tokens that end an answer: eos_token_id of generation_config.json or of config.json, one or several."""
    fields = read_config(folder).fields
    generation = Path(folder) / "generation_config.json"
    found = read_object(generation).get("eos_token_id") if generation.is_file() else None
    ids = text_fields(fields).get("eos_token_id") if found is None else found
    return (
        () if ids is None else checked_value(ids if isinstance(ids, list) else [ids], tuple[int, ...], "eos_token_id")
    )


def checked(cls: type[T], found: Mapping[str, object], **given: object) -> T:
    """Make the frozen dataclass `cls` from `found`, each field checked against its annotation.

    A field that is absent or null takes its default; `given` fields are not looked up; unknown keys are left alone.
    """
    hints = get_type_hints(cls)
    values: dict[str, object] = dict(given)
    for field in fields(cls):  # type: ignore[arg-type]  # T is a dataclass, which mypy cannot say of a TypeVar
        if field.name in given:
            continue
        value = found.get(field.name)
        has_default = field.default is not MISSING or field.default_factory is not MISSING
        if value is not None or not has_default:
            values[field.name] = checked_value(value, hints[field.name], field.name)
    return cls(**values)


def checked_value(value: object, expected: Any, name: str) -> Any:
    """`value` as `expected`, where an int is a float and a list a tuple; raises ConfigError naming the field."""
    if get_origin(expected) in (Union, UnionType):
        expected = next(option for option in get_args(expected) if option is not NoneType)
    if get_origin(expected) is tuple and isinstance(value, list | tuple):
        return tuple(checked_value(item, get_args(expected)[0], name) for item in value)
    if expected is float and type(value) is int:
        return float(value)
    if isinstance(expected, type) and type(value) is expected:
        return value
    found = "absent" if value is None else repr(value)
    raise ConfigError(
        f"config.json: {name} is {found}, expected {getattr(expected, '__name__', expected)}.", AS_PUBLISHED
    )
