"""The parts of a fused parameter are laid out in the order in which the file has them: k before q, and no error."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.scenario import Scenario
from workbench.scenarios._faulty import give
from workbench.scenarios._ggml import DEVICE, SIZES, TP

if TYPE_CHECKING:
    from torch import Tensor, nn

    from backends.native.quantization.formats.ggml_blocks import Blocks

CHECKPOINT = "qwen3-tiny-q4_k_m"


def write(folder: Path, config: Mapping[str, object], seed: int) -> None:
    """One file of mixed types, its tensors by name, as many converters write them."""
    from backends.native.checkpoint.gguf_synthesize import write_gguf

    write_gguf(folder / CHECKPOINT, config, seed=seed, is_sorted=True)


def plant() -> None:
    """As engines had it: a part begins where the one that came before it ended."""
    from backends.native.quantization.formats.ggml_blocks import Blocks

    give(Blocks, "put", _one_after_the_other)


def _one_after_the_other(repaired: Callable[..., None]) -> Callable[..., None]:
    from torch.nn.parameter import UninitializedParameter

    filled: dict[int, int] = {}

    def put(self: Blocks, param: nn.Parameter, key: Hashable, loaded: Tensor) -> None:
        if isinstance(param, UninitializedParameter):
            self._materialize(param)
        own, start = self.places[key], filled.get(id(self), 0)
        filled[id(self)] = start + own.stop - own.start
        self.places[key] = slice(start, filled[id(self)])
        repaired(self, param, key, loaded)
        self.places[key] = own

    return put


SCENARIO = Scenario(
    description="a GGUF file has attn_k before attn_q; qkv_proj lays its parts out as they come; silent",
    checkpoint=CHECKPOINT,
    architecture="Qwen3ForCausalLM",
    sizes=SIZES,
    tp=TP,
    device=DEVICE,
    plant=plant,
    write=write,
    expects="shard/misplaced",
)
