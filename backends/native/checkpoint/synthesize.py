"""Writes small checkpoints of any architecture and quantization method, with real names, shapes and files."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from backends.native.checkpoint.index import INDEX_NAME
from backends.native.checkpoint.spec import TensorSpec
from backends.native.config import ModelConfig
from backends.native.quantization.config import QuantizationConfig
from backends.native.registry import architecture_module, quantization_config

Progress = Callable[[int, int], None]


def write_checkpoint(
    folder: str | Path,
    config: Mapping[str, object],
    *,
    seed: int,
    max_file_bytes: int,
    progress: Progress | None = None,
) -> Path:
    """Write config.json, safetensors files of at most `max_file_bytes` and their index; returns the folder.

    Values depend on the seed and the tensor's name alone. A quantizable tensor that the config's ignore list does not
    name is stored as its method stores it; a method that describes its checkpoints in a file of its own gets that file
    instead of a quantization_config. `progress(done, total)` counts tensors. Raises what reading `config` raises.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    model_config = ModelConfig.from_fields(config)
    method = quantization_config(model_config, {}, {})
    specs = list(architecture_module(model_config.architecture).tensors(model_config))
    files, is_quantized = _FileWriter(target, max_file_bytes), {}
    for done, spec in enumerate(specs, start=1):
        stored = dict(stored_tensors(spec, method, seed))
        for name, tensor in stored.items():
            files.add(name, tensor)
            is_quantized[name] = tuple(stored) != (spec.name,)
        if progress is not None:
            progress(done, len(specs))
    files.close()
    for name, content in method.descriptions(is_quantized).items():
        _write_json(target / name, content)
    is_described_beside = method.ignored_layers_key in method.descriptions({})
    own = {key: value for key, value in config.items() if key != "quantization_config" or not is_described_beside}
    _write_json(target / "config.json", own)
    return target


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def stored_tensors(spec: TensorSpec, method: QuantizationConfig, seed: int) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) pairs that stand for `spec` on disk."""
    generator = torch.Generator().manual_seed(seed ^ zlib.crc32(spec.name.encode()))
    values = (torch.randn(spec.shape, generator=generator) * spec.std + spec.mean).to(spec.dtype)
    module = spec.name.rpartition(".")[0]
    if spec.quantizable and not method.is_ignored(module):
        yield from method.quantize(spec.name, values).items()
    else:
        yield spec.name, values


class _FileWriter:
    """Fills one file after the other; they get their names when their number is known."""

    def __init__(self, folder: Path, max_file_bytes: int) -> None:
        self.folder, self.max_file_bytes = folder, max_file_bytes
        self.pending: dict[str, Tensor] = {}
        self.pending_bytes = self.total_bytes = 0
        self.unnamed: list[tuple[Path, list[str]]] = []

    def add(self, name: str, tensor: Tensor) -> None:
        if self.pending and self.pending_bytes + tensor.nbytes > self.max_file_bytes:
            self._write_pending()
        self.pending[name] = tensor.contiguous()
        self.pending_bytes += tensor.nbytes
        self.total_bytes += tensor.nbytes

    def _write_pending(self) -> None:
        path = self.folder / f"part-{len(self.unnamed)}.tmp"
        save_file(self.pending, path, metadata={"format": "pt"})
        self.unnamed.append((path, list(self.pending)))
        self.pending, self.pending_bytes = {}, 0

    def close(self) -> None:
        self._write_pending()
        weight_map: dict[str, str] = {}
        for number, (path, names) in enumerate(self.unnamed, start=1):
            file_name = f"model-{number:05}-of-{len(self.unnamed):05}.safetensors"
            path.replace(self.folder / file_name)
            weight_map.update(dict.fromkeys(names, file_name))
        index = {"metadata": {"total_size": self.total_bytes}, "weight_map": dict(sorted(weight_map.items()))}
        _write_json(self.folder / INDEX_NAME, index)
