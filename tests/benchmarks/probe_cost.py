"""What watching a load costs, as whole-load ratios to the same load unwatched.

`python tests/benchmarks/probe_cost.py [--level calls|ledger|values] [--size 1|8] [--json]`: tensors of 1 MB or 8 KB.
The wrappers that the probe has set are taken out and put back between two loads of one process: both kinds alternate.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

LEVELS = ("calls", "ledger", "values")
MARK = "__loadscope__"
BASE = {
    "architectures": ["Qwen3MoeForCausalLM"], "torch_dtype": "bfloat16", "vocab_size": 64,
    "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 32, "num_experts_per_tok": 2,
    "norm_topk_prob": True, "intermediate_size": 64, "rms_norm_eps": 1e-6, "rope_theta": 1e6, "hidden_act": "silu",
    "tie_word_embeddings": False,
}  # fmt: skip
LOADS = {
    "2,000 tensors of 1 MB": BASE | {
        "hidden_size": 1024, "moe_intermediate_size": 512, "num_experts": 64, "num_hidden_layers": 10,
    },
    "20,000 tensors of 8 KB": BASE | {
        "hidden_size": 64, "moe_intermediate_size": 64, "num_experts": 256, "num_hidden_layers": 26,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Held:
    """A function that the probe has wrapped, where it is held."""

    owner: object
    name: str
    watched: object
    plain: object


def wrapped_functions(package: str) -> Iterator[Held]:
    """Every wrapper of the probe in the modules and classes of a package."""
    for name, module in list(sys.modules.items()):
        if isinstance(module, ModuleType) and (name == package or name.startswith(package + ".")):
            owners = [module, *(one for one in vars(module).values() if isinstance(one, type))]
            for owner in owners:
                for key, value in list(vars(owner).items()):
                    plain = unwrapped(value)
                    if plain is not value:
                        yield Held(owner, key, value, plain)


def unwrapped(value: object) -> object:
    """The engine's own function below our wrappers, in the same kind of method."""
    kind = type(value) if isinstance(value, (staticmethod, classmethod)) else None
    function = value.__func__ if isinstance(value, (staticmethod, classmethod)) else value
    inner = function
    while isinstance(inner, FunctionType) and vars(inner).get(MARK, (None,))[0] is inner:
        inner = inner.__wrapped__  # type: ignore[attr-defined]
    if inner is function:
        return value
    return inner if kind is None else kind(inner)


def child(level: str, work: str, model: str) -> None:
    """Measure one load at one level; the probe is armed by the environment already."""
    from paired import measured, pinned, report

    from backends.native import loader

    pinned()
    held = list(wrapped_functions("backends.native"))
    size = sum(file.stat().st_size for file in Path(model).glob("*.safetensors"))

    def loading(is_watched: bool) -> Callable[[], object]:
        def load() -> None:
            for one in held:
                setattr(one.owner, one.name, one.watched if is_watched else one.plain)
            for one in loader.load(model).models:
                let_go(one)

        return load

    report(measured(f"{work}, {level}", {"unwatched": loading(False), level: loading(True)}, size, "unwatched"))


def let_go(model: nn.Module) -> None:
    """Free the weights now: modules refer to each other, and Python's collector comes when gigabytes are gone."""
    for parameter in model.parameters():
        parameter.data = parameter.data.new_empty(0)


def run_child(level: str, work: str, model: Path, folder: Path) -> None:
    """A process of its own, armed for a session at this level."""
    from workbench.launching import inspector_modules

    session = folder / f"session-{level}-{model.name}"
    (session / "streams").mkdir(parents=True)
    manifest = {"schema": 1, "level": level, "engines": ["backends.engines.native"], "max_events": 10**9}
    manifest["inspectors"] = list(inspector_modules())
    (session / "session.json").write_text(json.dumps(manifest), encoding="utf-8")
    environment = os.environ | {"LOADSCOPE_SESSION": str(session), "LOADSCOPE_LEVEL": level, "OMP_NUM_THREADS": "1"}
    passed = [flag for flag in sys.argv[1:] if flag == "--json"]
    command = [sys.executable, __file__, "--child", level, work, str(model), *passed]
    subprocess.run(command, env=environment, check=True)


def main() -> None:
    """Both loads at each level."""
    from paired import describe_machine

    from backends.native.checkpoint.synthesize import write_checkpoint

    levels = (sys.argv[sys.argv.index("--level") + 1],) if "--level" in sys.argv else LEVELS
    describe_machine()
    with tempfile.TemporaryDirectory() as folder:
        size = sys.argv[sys.argv.index("--size") + 1] if "--size" in sys.argv else ""
        for number, (work, config) in enumerate(LOADS.items()):
            if f"of {size}" not in work:
                continue
            model = Path(folder) / f"model{number}"
            write_checkpoint(model, config, seed=0, max_file_bytes=1 << 30)
            for level in levels:
                run_child(level, work, model, Path(folder))


if __name__ == "__main__":
    if "--child" in sys.argv:
        from inspectors.probe.bootstrap import arm

        arm()
        child(*sys.argv[2:5])
    else:
        main()
