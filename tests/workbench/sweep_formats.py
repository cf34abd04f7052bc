"""Trace every format on every architecture and print what is found: a script to run by hand, not a test.

    python tests/workbench/sweep_formats.py FOLDER [WORD …]     # only combinations whose name holds every word

Each load should end with "ok" and no finding. Checkpoints and sessions are written under FOLDER.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

FORMATS = Path(__file__).parents[1] / "backends" / "test_format_checkpoints.py"
SEED, MAX_FILE_BYTES, TP = 1, 1 << 22, 2
BLOCKS = "gguf"


def formats() -> ModuleType:
    """The module that knows every format's config and each architecture's smallest one."""
    spec = importlib.util.spec_from_file_location("formats", FORMATS)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def traced(model: Path, folder: Path) -> dict[str, Any]:
    """The verdict on one load and a short generation."""
    words = ("trace", model, "--tp", TP, "--json", "--fail-on", "note", "-o", folder)
    done = subprocess.run(
        [sys.executable, "-m", "workbench.cli", *map(str, words)],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    said = json.loads(done.stdout or "{}")
    return said if "findings" in said else {"outcome": "no verdict", "findings": [], "why": done.stderr[-400:]}


def main(folder: Path, wanted: list[str]) -> int:
    """Run the combinations; returns how many were not clean."""
    from backends.native.checkpoint.gguf_synthesize import write_gguf
    from backends.native.checkpoint.synthesize import write_checkpoint

    known, wrong = formats(), 0
    for architecture in known.ARCHITECTURES:
        for method in ("bf16", BLOCKS, *known.METHODS):
            name = f"{architecture} · {method}"
            if not all(word in name for word in wanted):
                continue
            is_quantized = method in known.METHODS
            config = known.config_of(architecture, method) if is_quantized else known.small_config(architecture)
            stem = name.replace(" · ", "-").replace(" ", "-")
            if method == BLOCKS:
                plain = {key: value for key, value in config.items() if key != "rope_scaling"}  # no writer of its own
                model = write_gguf(folder / stem / stem, plain, seed=SEED)
            else:
                model = write_checkpoint(folder / stem, config, seed=SEED, max_file_bytes=MAX_FILE_BYTES)
            said = traced(model, folder / f"{stem}-session")
            is_clean = said["outcome"] == "ok" and not said["findings"]
            wrong += not is_clean
            print(f"{'ok' if is_clean else said['outcome']:<10} {name}", flush=True)
            for finding in said["findings"]:
                print(f"    {finding['severity']} {finding['class']}: {finding['sentence'][:300]}", flush=True)
            if "why" in said:
                print(f"    {said['why']}", flush=True)
    return wrong


if __name__ == "__main__":
    sys.exit(min(main(Path(sys.argv[1]), sys.argv[2:]), 1))
