"""A host that drops a model gets its memory back, whatever is recorded, and the ledger forgets what it has told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from workbench.launching import inspector_modules

ROOT = Path(__file__).resolve().parents[2]
HOST = """
import gc, sys, weakref
from inspectors.probe.bootstrap import arm
arm()
from backends.native import loader
import torch
torch.set_num_threads(1)
alive = []
for _ in range(3):
    loaded = loader.load(sys.argv[1])
    model = loaded.models[0]
    with torch.inference_mode():
        model(torch.tensor([1, 2, 3]), torch.arange(3))
    alive += [weakref.ref(module) for module in model.modules()]
    del loaded, model
    gc.collect()
from inspectors.weights import INSPECTOR
remembered = len(INSPECTOR._parameters.memory.buffers)
print(len(alive) > 30, sum(one() is not None for one in alive), "storages of one file at most:", remembered <= 2)
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    from backends.native.checkpoint.synthesize import write_checkpoint
    from backends.native.registry import architecture_module

    folder = tmp_path_factory.mktemp("model")
    config = architecture_module("Qwen3MoeForCausalLM").tiny_config()
    write_checkpoint(folder, config, seed=0, max_file_bytes=1 << 30)
    return folder


@pytest.mark.parametrize("level", ["calls", "tensors"])
def test_a_model_that_the_host_drops_is_gone(tmp_path, model, level):
    (tmp_path / "streams").mkdir()
    manifest = {"schema": 1, "level": level, "engines": ["backends.engines.native"], "max_events": 10**7}
    manifest["inspectors"] = list(inspector_modules())
    (tmp_path / "session.json").write_text(json.dumps(manifest), encoding="utf-8")
    environment = {**os.environ, "LOADSCOPE_SESSION": str(tmp_path), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment.pop("LOADSCOPE_LEVEL", None)
    command = [sys.executable, "-c", HOST, str(model)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "True 0 storages of one file at most: True"
    assert list((tmp_path / "streams").glob("*.sqlite")), done.stderr
