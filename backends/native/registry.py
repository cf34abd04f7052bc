"""Finds architectures and quantization methods: each is one file, known by what it declares, imported when chosen."""

from __future__ import annotations

import ast
import difflib
import importlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType

from backends.native.config import ModelConfig, read_object
from backends.native.errors import ConfigError, UnknownNameError
from backends.native.quantization.config import QuantizationConfig

HERE = Path(__file__).parent


def declared(folder: str, constant: str) -> dict[str, tuple[object, ...]]:
    """Module name -> the tuple it assigns to `constant`, found without importing; other files are no plugins."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted((HERE / folder).glob("[!_]*.py")):
        for node in _statements(path, path.stat().st_mtime_ns):
            if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == constant for t in node.targets):
                found[path.stem] = ast.literal_eval(node.value)
    return found


@cache
def _statements(path: Path, changed_ns: int) -> list[ast.stmt]:
    """Parsed once: every rank of every load asks."""
    del changed_ns
    return ast.parse(path.read_text(encoding="utf-8")).body


def did_you_mean(name: str, known: Iterable[object]) -> str:
    """A remedy that offers the nearest known names, or all of them."""
    names = sorted(str(item) for item in known if item is not None)
    near = difflib.get_close_matches(name, names, n=2, cutoff=0.6)
    return f"did you mean {' or '.join(near)}? Known: {', '.join(names)}"


def architecture_module(name: str) -> ModuleType:
    """The plugin whose ARCHITECTURES has `name`; raises UnknownNameError."""
    plugins = declared("models", "ARCHITECTURES")
    for stem, names in plugins.items():
        if name in names:
            return importlib.import_module(f"{__package__}.models.{stem}")
    raise UnknownNameError(
        f"architecture {name!r} is not known.",
        did_you_mean(name, (name for names in plugins.values() for name in names)),
    )


def quantization_config(
    config: ModelConfig,
    packed_modules_mapping: Mapping[str, Sequence[str]],
    fused_fallback: Mapping[str, Sequence[str]],
) -> QuantizationConfig:
    """The config of the one method that claims the checkpoint's `quantization_config`, or its absence."""
    return config_from_fields(config.quantization or {}, packed_modules_mapping, fused_fallback)


def config_from_fields(
    quantization: Mapping[str, object],
    packed_modules_mapping: Mapping[str, Sequence[str]],
    fused_fallback: Mapping[str, Sequence[str]],
) -> QuantizationConfig:
    """The same from the fields of a `quantization_config` alone."""
    return _claiming_class(quantization).from_fields(quantization, packed_modules_mapping, fused_fallback)


def described(config: ModelConfig, folder: str | Path) -> ModelConfig:
    """`config`, whose quantization_config a method's own file in the checkpoint's folder gives where it has none.

    Raises ConfigError for such a file that is malformed.
    """
    if config.quantization is not None:
        return config
    methods = declared("quantization", "QUANT_METHODS")
    for stem, names in declared("quantization", "DESCRIBED_IN").items():
        for path in (Path(folder) / str(name) for name in names):
            if path.is_file():
                return replace(config, quantization={"quant_method": methods[stem][0], **read_object(path)})
    return config


def _claiming_class(quantization: Mapping[str, object]) -> type[QuantizationConfig]:
    name = quantization.get("quant_method")
    plugins = declared("quantization", "QUANT_METHODS")
    candidates = [_config_class(stem) for stem, names in plugins.items() if name in names]
    if not candidates:
        raise UnknownNameError(
            f"quant_method {name!r} is not known.",
            did_you_mean(str(name), (n for names in plugins.values() for n in names)),
        )
    claiming = [candidate for candidate in candidates if candidate.claims(quantization)]
    if not claiming:
        wants = "; ".join(f"{candidate.__name__} wants {candidate.CLAIMS}" for candidate in candidates)
        raise ConfigError(
            f"no method claims this quantization_config with quant_method {name!r}: {wants}.",
            "compare the quantization_config with the one the model was published with",
        )
    if len(claiming) > 1:
        names = " and ".join(f"{candidate.__module__}:{candidate.__name__}" for candidate in claiming)
        raise ConfigError(
            f"{names} both claim the quantization_config with quant_method {name!r}.", "make their claims() disjoint"
        )
    return claiming[0]


def _config_class(stem: str) -> type[QuantizationConfig]:
    module = importlib.import_module(f"{__package__}.quantization.{stem}")
    for value in vars(module).values():
        if isinstance(value, type) and issubclass(value, QuantizationConfig) and value.__module__ == module.__name__:
            return value
    raise ConfigError(
        f"{module.__name__} declares QUANT_METHODS but has no class derived from QuantizationConfig.",
        "add the class, or remove the declaration",
    )
