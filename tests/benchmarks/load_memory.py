"""How much memory a load takes at most: `python tests/benchmarks/load_memory.py [--json]`.

Anonymous memory (RssAnon) of a process of its own, read every half millisecond from outside. Pages of the mapped files
(RssFile) are the system's to take back at any time and are shown beside it.
"""

from __future__ import annotations

import gc
import importlib
import json
import select
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from paired import describe_machine

from backends.native import loader
from backends.native.checkpoint.index import open_checkpoint
from backends.native.checkpoint.synthesize import write_checkpoint
from backends.native.config import read_config
from backends.native.kernels import compiled

EVERY_S = 0.0005
MEBIBYTE = 1 << 20
SIZES = {
    "vocab_size": 4096, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 8, "num_experts": 16,
    "moe_intermediate_size": 512, "head_dim": 128, "num_attention_heads": 8, "num_key_value_heads": 2,
    "layer_types": None, "tie_word_embeddings": False,
}  # fmt: skip
BLOCKS = {"quant_method": "fp8", "weight_block_size": [128, 128], "modules_to_not_convert": []}
GROUPS = {"bits": 4, "group_size": 128, "modules_to_not_convert": []}
FORMATS: dict[str, tuple[str, dict[str, Any] | None]] = {
    "bfloat16": ("qwen3", None),
    "FP8 blocks": ("qwen3", BLOCKS),
    "FP8 blocks, experts": ("qwen3_moe", BLOCKS),
    "NVFP4": ("qwen3", {"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 16, "exclude_modules": []}),
    "AWQ": ("qwen3", {"quant_method": "awq", "version": "gemm", **GROUPS}),
    "GPTQ": ("qwen3", {"quant_method": "gptq", "sym": True, **GROUPS}),
    "GPTQ, any order": ("qwen3", {"quant_method": "gptq", "sym": False, "desc_act": True, **GROUPS}),
    "GPTQ, experts": ("qwen3_moe", {"quant_method": "gptq", "sym": True, **GROUPS}),
}


@dataclass(frozen=True)
class Peak:
    """What one load took beyond what the process held before it, in MiB."""

    what: str
    tp_size: int
    parameters: float
    largest_tensor: float
    peak: float
    peak_of_mapped_files: float

    @property
    def is_within(self) -> bool:
        """Whether the peak stays below the parameters plus the largest tensor."""
        return self.peak <= self.parameters + self.largest_tensor


def resident(process: int | str) -> tuple[int, int]:
    """RssAnon and RssFile in bytes."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text("utf-8").splitlines())
    anonymous, mapped = (int(fields[name].split()[0]) << 10 for name in ("RssAnon", "RssFile"))
    return anonymous, mapped


def size_of(model: torch.nn.Module) -> int:
    """Bytes of the parameters and buffers, memory that several share counted once."""
    tensors = (*model.parameters(), *model.buffers())
    return sum({one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in tensors}.values())


def child(folder: str, tp_size: int) -> None:
    """Load, telling the parent when it begins and, with the parameters' size, when it is done.

    That size is the one before or after the formats finish their layers, whichever is more: some drop parameters.
    """
    torch.set_num_threads(1)
    compiled.why_not("cpu")
    config = read_config(folder)  # what a load imports is not what it loads
    with torch.device("meta"):
        loader.build_model(config, loader.LoadOptions(), ("reference",), keeps_blocks=True)
    filled, process_weights = [], loader.process_weights

    def process(model: torch.nn.Module) -> None:
        filled.append(size_of(model))
        process_weights(model)

    loader.process_weights = process
    gc.collect()
    print(json.dumps(resident("self")), flush=True)
    sys.stdin.readline()
    loaded = loader.load(folder, loader.LoadOptions(tp_size=tp_size))
    print(max(sum(filled), sum(map(size_of, loaded.models))), flush=True)
    sys.stdin.readline()


def measured(what: str, folder: Path, tp_size: int) -> Peak:
    """Load `folder` in a process of its own and watch it."""
    command = [sys.executable, __file__, "--child", str(folder), str(tp_size)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        if process.stdin is None or process.stdout is None:
            raise SystemExit("the child has no pipes")
        before, before_mapped = json.loads(process.stdout.readline())
        process.stdin.write("go\n")
        process.stdin.flush()
        peak, mapped = 0, 0
        while not select.select([process.stdout], [], [], EVERY_S)[0]:
            anonymous, file_backed = resident(process.pid)
            peak, mapped = max(peak, anonymous), max(mapped, file_backed)
        parameters = int(process.stdout.readline())
        process.stdin.write("end\n")
        process.stdin.flush()
    largest = max(entry.end_byte - entry.start_byte for entry in open_checkpoint(folder).entries())
    sizes = (parameters, largest, peak - before, mapped - before_mapped)
    return Peak(what, tp_size, *(round(size / MEBIBYTE, 1) for size in sizes))


def main() -> None:
    describe_machine()
    if "--json" not in sys.argv:
        print(f"  {'MiB':24} {'tp':>3} {'parameters':>11} {'largest':>8} {'peak':>8} {'mapped':>8}")
    for what, (architecture, quantization) in FORMATS.items():
        module = importlib.import_module(f"backends.native.models.{architecture}")
        config = {key: value for key, value in {**module.tiny_config(), **SIZES}.items() if value is not None}
        if quantization is not None:
            config["quantization_config"] = quantization
        with tempfile.TemporaryDirectory() as made:
            folder = write_checkpoint(Path(made), config, seed=1, max_file_bytes=1 << 30)
            for tp_size in (1, 2):
                found = measured(what, folder, tp_size)
                if "--json" in sys.argv:
                    print(json.dumps({**asdict(found), "is_within": found.is_within}), flush=True)
                    continue
                sizes = f"{found.parameters:11} {found.largest_tensor:8} {found.peak:8} {found.peak_of_mapped_files:8}"
                print(f"  {what:24} {tp_size:3} {sizes}  {'' if found.is_within else 'MORE'}", flush=True)


if __name__ == "__main__":
    if "--child" in sys.argv:
        place = sys.argv.index("--child")
        child(sys.argv[place + 1], int(sys.argv[place + 2]))
    else:
        main()
