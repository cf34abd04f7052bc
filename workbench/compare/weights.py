"""The weights of a checkpoint on disk, dequantized one module at a time by its own method."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from workbench.compare.metrics import measure
from workbench.errors import INCOMPLETE, UserError

Array = npt.NDArray[Any]

_SAMPLE_ROWS = 128
"""A multiple of every block that formats put scales on."""
_PLAIN_SUFFIXES = frozenset({"weight", "bias"})


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a checkpoint by module and suffix; `read` gives one tensor of torch by its full name."""

    folder: Path
    method: Any = field(repr=False)
    modules: Mapping[str, tuple[str, ...]] = field(repr=False)
    read: Callable[[str], Any] = field(repr=False)
    _noises: dict[tuple[str, int], float] = field(default_factory=dict, repr=False)

    def weight(self, name: str) -> Array:
        """A weight by the name `weights` gives it, as float32, dequantized where it is stored quantized."""
        module, suffixes = self._stored(name)
        if suffixes is None:
            return as_array(self.read(name))
        return as_array(
            self.method.dequantize(module, {suffix: self.read(f"{module}.{suffix}") for suffix in suffixes})
        )

    def linear(self, module: str) -> tuple[Array, Array | None] | None:
        """Weight [output, input] and bias of a module on disk; None where it has no such weight."""
        suffixes = self.modules.get(module, ())
        if not _holds_weight(suffixes):
            return None
        weight = self.weight(f"{module}.weight")
        bias = self.weight(f"{module}.bias") if "bias" in suffixes else None
        return (weight, bias) if weight.ndim == len(("output", "input")) else None

    def holds(self, name: str) -> bool:
        """Whether there is a module of that weight's name."""
        return name.rpartition(".")[0] in self.modules

    def is_quantized(self, name: str) -> bool:
        """Whether a weight is stored in a format of the checkpoint's method."""
        return self._stored(name)[1] is not None

    def requantized(self, name: str, weight: Array) -> Array | None:
        """`weight` quantized as this checkpoint stores `name`, and dequantized: what the format itself makes of it.

        For a plain tensor, cast to its dtype and back. None where the method cannot make that weight.
        """
        import torch

        plain = torch.from_numpy(weight)
        module, suffixes = self._stored(name)
        if suffixes is None:
            return as_array(plain.to(self.read(name).dtype))
        try:
            stored = self.method.quantize(f"{module}.weight", plain)
            tensors = {full.removeprefix(f"{module}."): tensor for full, tensor in stored.items()}
            return as_array(self.method.dequantize(module, tensors))
        except (RuntimeError, ValueError, KeyError, NotImplementedError):
            return None  # a format that cannot be made from a weight alone has no expected noise

    def format_noise(self, name: str) -> float:
        """The noise that the format of a weight adds to normally distributed values; 0 for a plain or unknown one."""
        suffixes = self._stored(name)[1]
        if suffixes is None:
            return 0.0
        columns = self.weight(name).shape[-1]
        key = ("".join(suffixes), columns)
        if key not in self._noises:
            values = np.random.default_rng(0).standard_normal((_SAMPLE_ROWS, columns)).astype(np.float32)
            made = self.requantized(name, values)
            self._noises[key] = 0.0 if made is None else measure(values, made).noise
        return self._noises[key]

    def _stored(self, name: str) -> tuple[str, tuple[str, ...] | None]:
        """The module of a weight, and the suffixes it is stored under; None for a plain tensor."""
        module, _, suffix = name.rpartition(".")
        if suffix != "weight":
            return module, None
        suffixes = self.modules[module]
        is_plain = set(suffixes) <= _PLAIN_SUFFIXES or self.method.is_ignored(module)
        return module, None if is_plain or not hasattr(self.method, "dequantize") else suffixes

    def weights(self) -> tuple[str, ...]:
        """Names of all weights: `<module>.weight` for one that is quantized, the tensor's own name for a plain one."""
        found: dict[str, None] = {}
        for module, suffixes in self.modules.items():
            is_one = self._stored(f"{module}.weight")[1] is not None and _holds_weight(suffixes)
            names = [f"{module}.weight"] if is_one else [f"{module}.{suffix}" for suffix in suffixes]
            found.update(dict.fromkeys(names))
        return tuple(found)


def _holds_weight(suffixes: tuple[str, ...]) -> bool:
    return any("weight" in suffix for suffix in suffixes)


def open_weights(folder: Path) -> Checkpoint:
    """Open a checkpoint folder of the embedded engine; UserError (exit 5) for one that it cannot read."""
    from backends.native.checkpoint.index import open_checkpoint
    from backends.native.config import read_config
    from backends.native.errors import NativeError
    from backends.native.registry import described, quantization_config

    try:
        config = described(read_config(folder), folder)
        opened = open_checkpoint(folder)
        method = quantization_config(config, {}, {})
    except NativeError as error:
        raise UserError(error.what, error.remedy, INCOMPLETE) from error
    modules: dict[str, list[str]] = defaultdict(list)
    paths: dict[str, Path] = {}
    for file in opened.files:
        for entry in file.entries:
            module, _, suffix = entry.name.rpartition(".")
            modules[module].append(suffix)
            paths[entry.name] = file.path
    return Checkpoint(folder, method, {name: tuple(own) for name, own in modules.items()}, _reader(paths))


def _reader(paths: Mapping[str, Path]) -> Callable[[str], Any]:
    """Reads tensors by name; a file stays open, since opening one parses the header of all its tensors."""
    files: dict[Path, Any] = {}

    def read(name: str) -> Any:
        from safetensors import safe_open

        path = paths[name]
        if path not in files:
            files[path] = safe_open(path, framework="pt", device="cpu")
        return files[path].get_tensor(name)

    return read


def as_array(tensor: Any) -> Array:
    """A tensor of torch as float32, float64 where it has that, exactly."""
    import torch

    kept = tensor if tensor.dtype == torch.float64 else tensor.float()
    array: Array = np.asarray(kept.detach().contiguous().numpy())
    return array
