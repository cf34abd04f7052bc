"""One expert's up projection is loaded into the place of its gate: every tensor came, and one part stays empty."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.scenario import Scenario
from workbench.scenarios._faulty import give
from workbench.scenarios._ggml import DEVICE, SIZES, TP

if TYPE_CHECKING:
    from torch import Tensor, nn

    from backends.native.quantization.formats.ggml_blocks import Blocks

CHECKPOINT = "qwen3-moe-tiny-q4_k_m"
EXPERTS = 4
FAULTY_EXPERT = 3


def write(folder: Path, config: Mapping[str, object], seed: int) -> None:
    """One file of mixed types with all experts of a projection in one tensor."""
    from backends.native.checkpoint.gguf_synthesize import write_gguf

    write_gguf(folder / CHECKPOINT, config, seed=seed)


def plant() -> None:
    """As engines had it: a wrong index for one of the parts that are gathered expert by expert."""
    from backends.native.quantization.formats.ggml_blocks import Blocks

    give(Blocks, "put", _misplacing)


def _misplacing(repaired: Callable[..., None]) -> Callable[..., None]:
    def put(self: Blocks, param: nn.Parameter, key: tuple[int, str], loaded: Tensor) -> None:
        repaired(self, param, (FAULTY_EXPERT, "w1") if key == (FAULTY_EXPERT, "w3") else key, loaded)

    return put


SCENARIO = Scenario(
    description="a GGUF file of experts: the last one's up projection overwrites its gate, its own place stays empty",
    checkpoint=CHECKPOINT,
    architecture="Qwen3MoeForCausalLM",
    overrides={
        "num_experts": EXPERTS,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 256,
    },
    sizes=SIZES,
    tp=TP,
    device=DEVICE,
    plant=plant,
    write=write,
    expects="shard/misplaced",
)
