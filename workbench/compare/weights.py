"""The weights of a checkpoint on disk, dequantized one module at a time by its own method."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from workbench.compare.metrics import measure
from workbench.errors import INCOMPLETE, UserError

Array = npt.NDArray[Any]

_SAMPLE_ROWS = 128
"""A multiple of every block that formats put scales on."""
UNKNOWN_NOISE = 0.03
"""15 dB: that of three bits."""
_PLAIN_SUFFIXES = frozenset({"weight", "bias"})


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a checkpoint by module and suffix; `read` gives one tensor of torch by its full name."""

    folder: Path
    method: Any = field(repr=False)
    modules: Mapping[str, tuple[str, ...]] = field(repr=False)
    read: Callable[[str], Any] = field(repr=False)
    _noises: dict[str, float] = field(default_factory=dict, repr=False)

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
        """Whether there is a module of that name."""
        return name in self.modules

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
        held = {suffix: self.read(f"{module}.{suffix}") for suffix in suffixes}
        try:
            stored = self.method.quantize_like(f"{module}.weight", plain, held)
            tensors = {full.removeprefix(f"{module}."): tensor for full, tensor in stored.items()}
            return as_array(self.method.dequantize(module, tensors))
        except (RuntimeError, ValueError, KeyError, NotImplementedError, ImportError):
            return None  # a format that cannot be made from a weight alone has no expected noise

    def format_noise(self, name: str) -> float:
        """The noise that the format of a weight adds to normally distributed values; 0 for a plain one.

        UNKNOWN_NOISE for a format that cannot be made from a weight alone.
        """
        if name in self._noises:
            return self._noises[name]
        module, suffixes = self._stored(name)
        if suffixes is None:
            return 0.0
        kind = " ".join(f"{suffix}{tuple(self.read(f'{module}.{suffix}').shape)}" for suffix in suffixes)
        if kind not in self._noises:
            columns = self.weight(name).shape[-1]
            values = np.random.default_rng(0).standard_normal((_SAMPLE_ROWS, columns)).astype(np.float32)
            made = self.requantized(name, values)
            self._noises[kind] = UNKNOWN_NOISE if made is None else measure(values, made).noise
        self._noises[name] = self._noises[kind]
        return self._noises[name]

    def _stored(self, name: str) -> tuple[str, tuple[str, ...] | None]:
        """The module of a weight, and the suffixes it is stored under; None for a plain tensor."""
        module, _, suffix = name.rpartition(".")
        if suffix != "weight":
            return module, None
        suffixes = self.modules[module]
        is_plain = set(suffixes) <= _PLAIN_SUFFIXES or not _holds_weight(suffixes) or self.method.is_ignored(module)
        return module, None if is_plain or not hasattr(self.method, "dequantize") else suffixes

    def weights(self) -> tuple[str, ...]:
        """Names of all weights: `<module>.weight` for one that is quantized, the tensor's own name for a plain one."""
        found: dict[str, None] = {}
        for module, suffixes in self.modules.items():
            is_one = self._stored(f"{module}.weight")[1] is not None
            names = [f"{module}.weight"] if is_one else [f"{module}.{suffix}" for suffix in suffixes]
            found.update(dict.fromkeys(name for name in names if name not in self.opaque))
        return tuple(found)

    @cached_property
    def opaque(self) -> frozenset[str]:
        """Tensors that nothing here dequantizes: stacks of experts with scales of their own, and these scales."""
        found: set[str] = set()
        for module, suffixes in self.modules.items():
            if not _holds_weight(suffixes):
                scaled = {one for one in suffixes for other in suffixes if other.startswith(f"{one}_scale")}
                found |= {
                    f"{module}.{one}" for one in suffixes if one in scaled or one.partition("_scale")[0] in scaled
                }
        return frozenset(found)


def _holds_weight(suffixes: tuple[str, ...]) -> bool:
    return any("weight" in suffix for suffix in suffixes)


def open_weights(folder: Path) -> Checkpoint:
    """Open a checkpoint folder of the embedded engine; UserError (exit 5) for one that it cannot read."""
    from backends.native.checkpoint.index import open_checkpoint
    from backends.native.checkpoint.reader import iterate_weights
    from backends.native.config import read_config
    from backends.native.errors import NativeError
    from backends.native.quantization.config import QuantizationConfig
    from backends.native.registry import described, quantization_config

    try:
        config = described(read_config(folder), folder)
        opened = open_checkpoint(folder)
        method = quantization_config(config, {}, {})
    except NativeError as error:
        raise UserError(error.what, error.remedy, INCOMPLETE) from error
    if type(method).model_weights is not QuantizationConfig.model_weights:
        # The model's names are made from those of the file: what it yields are views of the mapped file.
        named = dict(method.model_weights(iterate_weights(opened)))
        return Checkpoint(folder, method, _by_module(named), named.__getitem__)
    paths = {entry.name: file.path for file in opened.files for entry in file.entries}
    return Checkpoint(folder, method, _by_module(paths), _reader(paths))


def _by_module(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    modules: dict[str, list[str]] = defaultdict(list)
    for name in names:
        module, _, suffix = name.rpartition(".")
        modules[module].append(suffix)
    return {module: tuple(suffixes) for module, suffixes in modules.items()}


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
