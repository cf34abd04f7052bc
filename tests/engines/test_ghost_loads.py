"""The ledger of real loads against ghost loads, element by element; `sweep_ghost.py` does so for every combination."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

LOADS = [
    ("qwen3_next", "fp8 block", 4), ("qwen3_next", "gguf", 2), ("qwen3_moe", "ct int8", 2), ("llama", "gguf", 1),
    ("llama", "modelopt nvfp4", 1), ("qwen3_5_moe", "mxfp4", 4), ("qwen3_5", "bf16", 2), ("qwen3", "gptq desc_act", 1),
]  # fmt: skip


@pytest.fixture(scope="module")
def sweep():
    path = Path(__file__).with_name("sweep_ghost.py")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def recorded(sweep, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ghosts")
    models = [sweep.write(architecture, method, folder / str(n)) for n, (architecture, method, _) in enumerate(LOADS)]
    events = sweep.ghost.record(list(zip(models, [tp for *_, tp in LOADS], strict=True)), folder / "session")
    return list(zip(models, events, strict=True))


@pytest.mark.parametrize("load", range(len(LOADS)), ids=[f"{a} {m} tp {tp}" for a, m, tp in LOADS])
def test_every_element_came_from_where_the_ledger_says(sweep, recorded, tmp_path, load):
    model, events = recorded[load]
    *_, method, tp = LOADS[load]
    said = sweep.ghost.compared(model, tp, events, tmp_path)
    assert said.wrong == {}
    assert said.exact > 100_000
    assert said.never == 0
    assert said.is_clean
    assert not said.unknown or method == "gguf"


def test_a_ledger_that_is_off_by_one_row_is_found_out(sweep, recorded, tmp_path):
    model, events = recorded[LOADS.index(("llama", "modelopt nvfp4", 1))]
    victim = next(event for event in events if event["length"][:1] == [128] and event["source_offset"] == 0)
    shifted = [{**e, "source_offset": e["source_strides"][0]} if e is victim else e for e in events]
    said = sweep.ghost.compared(model, 1, shifted, tmp_path)
    assert list(said.wrong) == [f"0/{victim['parameter']}"]
