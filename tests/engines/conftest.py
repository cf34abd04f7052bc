"""Tiny checkpoints and hosts that load them with the native stack, with and without the probe."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
INSPECTORS = [
    f"inspectors.{name}" for name in ("checkpoint", "decisions", "weights", "kernels", "numerics", "activations")
]
SKIPPED_AS_WHOLE = ("linear_attn.conv1d", "linear_attn.in_proj_ba", "linear_attn.in_proj_qkvz", "mlp.gate",
                    "mlp.shared_expert_gate")  # fmt: skip

SMALL = {"num_hidden_layers": 2, "full_attention_interval": 2, "hidden_size": 32, "head_dim": 16, "num_experts": 4,
         "linear_key_head_dim": 16, "linear_num_value_heads": 4, "linear_value_head_dim": 8,
         "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32}  # fmt: skip

DRIVER = """
from inspectors.probe.bootstrap import arm; arm()
import collections, hashlib, json, sys, threading
import torch
from safetensors.torch import save_file
torch.set_num_threads(1)
options = json.loads(sys.argv[1])
said = {}
BEFORE
from backends.native.loader import LoadOptions, load
from backends.native.generate import generate
loaded = load(options["model"], LoadOptions(tp_size=options["tp"], kernels=options.get("kernels", "reference")))
params = {f"{rank}/{name}": p.detach().contiguous().clone()
          for rank, model in enumerate(loaded.models) for name, p in model.named_parameters()}
raw = lambda p: p.view(torch.uint8) if p.dim() else p.reshape(1).view(torch.uint8)
said["sha256"] = {n: hashlib.sha256(raw(p).numpy().tobytes()).hexdigest() for n, p in params.items()}
if options.get("save"): save_file(params, options["save"])
FORWARD
said["tokens"] = generate(loaded, options["prompt"], options["new"])
AFTER
print(json.dumps(said))
"""


@dataclass(frozen=True)
class Event:
    """A row of a stream, read without any code of the project."""

    seq: int
    dur_ns: int | None
    kind: str
    parent: int
    rank: int
    body: dict[str, Any]
    stage: str = ""


def read_events(session: Path) -> list[Event]:
    (path,) = (session / "streams").glob("*.sqlite")
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    texts = dict(db.execute("SELECT id, value FROM text"))
    bodies: dict[int, dict[str, Any]] = {}
    for (kind,) in db.execute("SELECT DISTINCT kind FROM field").fetchall():
        fields = db.execute("SELECT name, storage FROM field WHERE kind=? ORDER BY position", (kind,)).fetchall()
        for seq, *values in db.execute(f'SELECT * FROM "body_{kind.replace(".", "_")}"'):  # noqa: S608 - our own kinds
            bodies[seq] = {
                name: texts[v] if storage == "text" else json.loads(texts[v]) if storage == "json" else v
                for (name, storage), v in zip(fields, values, strict=True)
            }
    rows = db.execute("SELECT seq, dur_ns, kind, parent, rank, stage FROM event ORDER BY seq").fetchall()
    db.close()
    return [Event(s, d, texts[k], p, r, bodies.get(s, {}), texts[stage]) for s, d, k, p, r, stage in rows]


@dataclass(frozen=True)
class Run:
    """What a host printed, and what was recorded of it."""

    code: int
    said: dict[str, Any]
    err: str
    events: list[Event]
    session: Path | None = None

    def of(self, *kinds: str) -> list[Event]:
        return [event for event in self.events if event.kind in kinds]


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory) -> dict[str, Path]:
    """A bf16 and an FP8 block checkpoint of the tiny architecture; the FP8 one leaves fused projections alone.

    The one called `small` is of two narrow layers, for kernels that are interpreted.
    """
    from backends.native.checkpoint.synthesize import write_checkpoint
    from backends.native.models import qwen3_next

    made = {}
    for kind in ("bf16", "fp8", "small"):
        config = qwen3_next.tiny_config() | (SMALL if kind == "small" else {})
        if kind == "fp8":
            layers = range(int(config["num_hidden_layers"]))
            names = [f"model.layers.{layer}.{name}" for layer in layers for name in SKIPPED_AS_WHOLE]
            config["quantization_config"] = {
                "quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic",
                "modules_to_not_convert": ["lm_head", "model.embed_tokens", *names],
            }  # fmt: skip
        made[kind] = tmp_path_factory.mktemp(kind)
        write_checkpoint(made[kind], config, seed=3, max_file_bytes=4_000_000)
    return made


def environment(session: Path | None) -> dict[str, str]:
    variables = {key: value for key, value in os.environ.items() if not key.startswith("LOADSCOPE_")}
    variables["PYTHONPATH"] = str(ROOT)
    if session is not None:
        variables["LOADSCOPE_SESSION"] = str(session)
    return variables


@pytest.fixture(scope="session")
def run_host(tmp_path_factory, checkpoints) -> Callable[..., Run]:
    """Load and generate in a process of its own; `level` None means without the probe. The same is run only once."""
    done_before: dict[str, Run] = {}

    def run(
        level: str | None,
        *,
        model: str = "fp8",
        tp: int = 2,
        code: tuple[str, str, str] = ("", "", ""),
        variables: dict[str, str] | None = None,
        **options: Any,
    ) -> Run:
        asked = json.dumps([level, model, tp, code, variables, options])
        if asked not in done_before:
            done_before[asked] = run_once(level, model, tp, code, variables, options)
        return done_before[asked]

    def run_once(
        level: str | None,
        model: str,
        tp: int,
        code: tuple[str, str, str],
        variables: dict[str, str] | None,
        options: dict[str, Any],
    ) -> Run:
        session = tmp_path_factory.mktemp("session")
        manifest = {"level": level, "engines": ["backends.engines.native"], "inspectors": INSPECTORS}
        (session / "session.json").write_text(json.dumps(manifest))
        given = {"model": str(checkpoints[model]), "tp": tp, "prompt": [1, 2, 3], "new": 2, **options}
        driver = DRIVER
        for place, text in zip(("BEFORE", "FORWARD", "AFTER"), code, strict=True):
            driver = driver.replace(place, text)
        done = subprocess.run(
            [sys.executable, "-c", driver, json.dumps(given)], capture_output=True, text=True, check=False, timeout=200,
            env={**environment(session if level else None), **(variables or {})}, cwd=session,
        )  # fmt: skip
        said = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {}
        return Run(done.returncode, said, done.stderr, read_events(session) if level else [], session)

    return run
