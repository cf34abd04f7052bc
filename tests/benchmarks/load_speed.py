"""How fast checkpoints in the page cache become warm parameters: `python tests/benchmarks/load_speed.py [--json]`.

How a file came into the cache decides how large its pages are there, and so what mapping it costs: `--cache download`
(the default) writes it in pieces of 16 MiB, as clients of model hubs do; `--cache disk` reads it back from the disk;
`--cache save_file` leaves it as that function wrote it, in pages of 4 KiB.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from paired import describe_machine, measured, pinned, report
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from backends.native.checkpoint.index import Checkpoint, open_checkpoint
from backends.native.checkpoint.reader import iterate_weights
from backends.native.config import ModelConfig
from backends.native.loader import LoadOptions, build_model
from backends.native.parallel.groups import Membership, joined

KINDS = ("reference",)
PIECE = 16 << 20
CACHE = sys.argv[sys.argv.index("--cache") + 1] if "--cache" in sys.argv else "download"
LARGE = 61
"""Layers of three tensors of 11 MB: 183 tensors, 2 GB."""
LAYERS, EXPERTS, HIDDEN, INTERMEDIATE = 12, 128, 1024, 128
"""Three tensors of 256 KB an expert: 4608 tensors, 1.2 GB."""
MOE_CONFIG = {
    "architectures": ["Qwen3MoeForCausalLM"], "torch_dtype": "bfloat16", "vocab_size": 512, "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 64,
    "num_experts": EXPERTS, "num_experts_per_tok": 2, "moe_intermediate_size": INTERMEDIATE, "norm_topk_prob": True,
    "intermediate_size": 128, "rms_norm_eps": 1e-6, "rope_theta": 1e6, "hidden_act": "silu",
    "tie_word_embeddings": False,
}  # fmt: skip


def noise(*shape: int) -> Tensor:
    """bfloat16 of any finite bits."""
    return torch.randint(0, 1 << 14, shape, dtype=torch.int16).view(torch.bfloat16)


def warm(*shape: int) -> Tensor:
    """Memory whose pages are there."""
    return torch.zeros(shape, dtype=torch.bfloat16)


def written(tensors: dict[str, Tensor], folder: Path) -> Checkpoint:
    """The checkpoint in the page cache."""
    saved, path = folder / "saved", folder / "model.safetensors"
    save_file(tensors, saved)
    if CACHE == "download":
        with saved.open("rb", buffering=0) as source, path.open("wb", buffering=0) as target:
            while piece := source.read(PIECE):
                target.write(piece)
    saved.replace(path) if CACHE != "download" else saved.unlink()
    if CACHE == "disk":
        with path.open("rb", buffering=0) as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            while file.read(PIECE):
                pass
    return open_checkpoint(folder)


def memcpy(size_bytes: int, parts: int) -> Callable[[], object]:
    """Copies `size_bytes` from memory to memory in `parts`."""
    part = size_bytes // parts
    source, target = torch.ones(parts, part, dtype=torch.uint8), torch.zeros(parts, part, dtype=torch.uint8)
    pairs = [(target[index], source[index]) for index in range(parts)]
    return lambda: [to.copy_(of) for to, of in pairs]


def paths(checkpoint: Checkpoint) -> list[Path]:
    return [file.path for file in checkpoint.files]


def opened_one_by_one(checkpoint: Checkpoint) -> Iterator[tuple[str, Tensor]]:
    """The library's own loop."""
    for path in paths(checkpoint):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a mapping
                yield name, file.get_tensor(name)


def loaded_whole(checkpoint: Checkpoint) -> Iterator[tuple[str, Tensor]]:
    """The library's own function."""
    for path in paths(checkpoint):
        yield from load_file(path).items()


def fill(parameters: dict[str, Tensor], weights: Iterator[tuple[str, Tensor]]) -> None:
    """What a loader of whole tensors does."""
    for name, tensor in weights:
        if name in parameters:
            parameters[name].copy_(tensor)


def fill_half(parameters: dict[str, Tensor], weights: Iterator[tuple[str, Tensor]]) -> None:
    """What the loaders of rank 0 of two do: `down_proj` is cut by columns, the others by rows."""
    for name, tensor in weights:
        if name in parameters:
            dim = int("down_proj" in name)
            parameters[name].copy_(tensor.narrow(dim, 0, tensor.shape[dim] // 2))


def half_by_get_slice(checkpoint: Checkpoint, parameters: dict[str, Tensor]) -> None:
    """The same with the library's slices."""
    for path in paths(checkpoint):
        with safe_open(path, framework="pt") as file:
            for name, parameter in parameters.items():
                part = file.get_slice(name)
                rows, columns = part.get_shape()
                is_down = "down_proj" in name
                parameter.copy_(part[:, : columns // 2] if is_down else part[: rows // 2])


def stack(checkpoint: Checkpoint, tp_size: int) -> Callable[[], object]:
    """The whole stack's `load_weights` of rank 0 into a model that was loaded before."""
    config, alone = ModelConfig.from_fields(MOE_CONFIG), Membership(0, tp_size, lambda *_: None)
    with torch.no_grad(), joined(alone):
        model = build_model(config, LoadOptions(tp_size=tp_size), KINDS, keeps_blocks=True)

    def load() -> None:
        with torch.no_grad(), joined(alone):
            model.load_weights(iterate_weights(checkpoint))

    return load


def large_tensors(folder: Path) -> None:
    checkpoint = written({f"layers.{n // 3}.{n % 3}": noise(2048, 2688) for n in range(3 * LARGE)}, folder)
    parameters = {entry.name: warm(*entry.shape) for entry in checkpoint.entries()}
    size = sum(parameter.nbytes for parameter in parameters.values())
    contenders = {
        "memcpy": memcpy(size, len(parameters)),
        "native": lambda: fill(parameters, iterate_weights(checkpoint)),
        "safetensors load_file": lambda: fill(parameters, loaded_whole(checkpoint)),
        "safetensors safe_open": lambda: fill(parameters, opened_one_by_one(checkpoint)),
    }
    report(measured(f"{len(parameters)} tensors, {size / 1e9:.2f} GB", contenders, size, "memcpy"))


def expert_tensors() -> dict[str, Tensor]:
    shapes = {
        "gate_proj": (INTERMEDIATE, HIDDEN),
        "up_proj": (INTERMEDIATE, HIDDEN),
        "down_proj": (HIDDEN, INTERMEDIATE),
    }
    return {
        f"model.layers.{layer}.mlp.experts.{expert}.{proj}.weight": noise(*shape)
        for layer in range(LAYERS)
        for expert in range(EXPERTS)
        for proj, shape in shapes.items()
    }


def small_tensors(folder: Path) -> None:
    checkpoint = written(expert_tensors(), folder)
    entries = list(checkpoint.entries())
    size = sum(entry.end_byte - entry.start_byte for entry in entries)
    parameters = {entry.name: warm(*entry.shape) for entry in entries}
    contenders: dict[str, Callable[[], object]] = {
        "memcpy": memcpy(size, len(entries)),
        "native": lambda: fill(parameters, iterate_weights(checkpoint)),
        "native, load_weights of the model": stack(checkpoint, 1),
        "safetensors safe_open": lambda: fill(parameters, opened_one_by_one(checkpoint)),
    }
    report(measured(f"{len(entries)} tensors, {size / 1e9:.2f} GB", contenders, size, "memcpy"))


def halves_of_small_tensors(folder: Path) -> None:
    checkpoint = written(expert_tensors(), folder)
    entries = list(checkpoint.entries())
    size = sum(entry.end_byte - entry.start_byte for entry in entries)
    halves = {
        entry.name: warm(*(n // 2 if dim == int("down_proj" in entry.name) else n for dim, n in enumerate(entry.shape)))
        for entry in entries
    }
    contenders = {
        "memcpy": memcpy(size // 2, len(entries)),
        "native": lambda: fill_half(halves, iterate_weights(checkpoint)),
        "native, load_weights of the model": stack(checkpoint, 2),
        "safetensors get_slice": lambda: half_by_get_slice(checkpoint, halves),
        "safetensors safe_open": lambda: fill_half(halves, opened_one_by_one(checkpoint)),
    }
    report(measured(f"the same, the half of rank 0 of 2, {size / 2e9:.2f} GB", contenders, size // 2, "memcpy"))


if __name__ == "__main__":
    pinned()
    describe_machine()
    for case in (large_tensors, small_tensors, halves_of_small_tensors):
        with tempfile.TemporaryDirectory() as made:
            case(Path(made))
