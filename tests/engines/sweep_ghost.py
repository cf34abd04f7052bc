"""Compare the ledger with ghost loads on every architecture, format and tp size: a script to run by hand, not a test.

    python tests/engines/sweep_ghost.py FOLDER [WORD …]     # only combinations whose name holds every word

Prints a line a combination and ends with 1 if an element is said wrongly, or not at all where it could be.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import torch

TP_SIZES = (1, 2, 4)
SEED, MAX_FILE_BYTES = 1, 1 << 20
BLOCKS = "gguf"


def beside(path: Path) -> ModuleType:
    """A module of the tests, which are no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


ghost = beside(Path(__file__).with_name("ghost.py"))
formats = beside(Path(__file__).parents[1] / "backends" / "test_format_checkpoints.py")


def write(architecture: str, method: str, folder: Path) -> Path:
    """A small checkpoint of an architecture in a format; returns its folder."""
    from backends.native.checkpoint.gguf_synthesize import write_gguf
    from backends.native.checkpoint.synthesize import write_checkpoint

    is_quantized = method in formats.METHODS
    config = formats.config_of(architecture, method) if is_quantized else formats.small_config(architecture)
    if method != BLOCKS:
        return write_checkpoint(folder, config, seed=SEED, max_file_bytes=MAX_FILE_BYTES)
    plain = {key: value for key, value in config.items() if key != "rope_scaling"}
    return write_gguf(folder / "model", plain, seed=SEED).parent


def main(folder: Path, wanted: list[str]) -> int:
    """Run the combinations; returns how many were not clean."""
    torch.set_num_threads(1)
    wrong = 0
    for architecture in formats.ARCHITECTURES:
        for method in ("bf16", BLOCKS, *formats.METHODS):
            name = f"{architecture} · {method}"
            if not all(word in name for word in wanted):
                continue
            here = folder / name.replace(" · ", "-").replace(" ", "-")
            model = write(architecture, method, here / "model")
            recorded = ghost.record([(model, tp) for tp in TP_SIZES], here / "session")
            for tp, events in zip(TP_SIZES, recorded, strict=True):
                said = ghost.compared(model, tp, events, here)
                wrong += not said.is_clean
                rest = f"never {said.never:>6}  unknown {sum(said.unknown.values()):>6}"
                print(
                    f"{'ok' if said.is_clean else 'WRONG':<6} {name:<40} tp {tp}  exact {said.exact:>8}  "
                    f"cast {said.cast:>6}  constant {said.constant:>6}  {rest}",
                    flush=True,
                )
                for parameter, count in [*said.wrong.items()][:6]:
                    print(f"    {count} bytes of {parameter} are said wrongly", flush=True)
                for parameter, count in [*said.unknown.items()][:6] if not said.is_clean else ():
                    print(f"    {count} bytes of {parameter} are not known", flush=True)
    return wrong


if __name__ == "__main__":
    sys.exit(min(main(Path(sys.argv[1]), sys.argv[2:]), 1))
