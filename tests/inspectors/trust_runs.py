"""Runs the host of the trust tests, with and without the probe, and reads what was recorded without our own reader."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HOST = Path(__file__).with_name("trust_host.py")
FORMATS = ROOT / "tests" / "backends" / "test_format_checkpoints.py"
INSPECTORS = sorted(
    f"inspectors.{path.stem}"
    for path in (ROOT / "inspectors").glob("*.py")
    if "\nINSPECTOR = " in path.read_text(encoding="utf-8")
)
COUNTED = ("loader.called", "skip.decided", "shard.split", "kernel.launched")
SEED, MAX_FILE_BYTES = 5, 1 << 22


@dataclass
class Ran:
    """How one host ended: what it said of each model, its errors, and the events of each model by kind."""

    said: dict[str, Any]
    err: str
    code: int
    recorded: dict[str, Counter[str]] = field(default_factory=dict)


def formats() -> ModuleType:
    """The module that knows every format's config and each architecture's smallest one."""
    spec = importlib.util.spec_from_file_location("loadscope_formats", FORMATS)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_model(folder: Path, architecture: str, method: str) -> Path:
    from backends.native.checkpoint.synthesize import write_checkpoint

    known = formats()
    config = known.small_config(architecture) if method == "bf16" else known.config_of(architecture, method)
    return write_checkpoint(folder / f"{architecture}-{method.replace(' ', '-')}", config, seed=SEED,
                            max_file_bytes=MAX_FILE_BYTES)  # fmt: skip


def write_broken(source: Path) -> Path:
    """A copy of a checkpoint in which one tensor has rows too many, so that its loader raises in the middle."""
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(source, source.with_name(f"{source.name}-broken")))
    file = max(folder.glob("*.safetensors"))
    tensors = load_file(file)
    name = max(n for n, one in tensors.items() if one.dim() == 2)
    tensors[name] = tensors[name].repeat(3, 1)[:-1].contiguous()
    save_file(tensors, file)
    return folder


def write_manifest(session: Path, level: str, **changes: Any) -> None:
    session.mkdir(parents=True, exist_ok=True)
    manifest = {"level": level, "engines": ["backends.engines.native"], "inspectors": INSPECTORS, **changes}
    (session / "session.json").write_text(json.dumps(manifest), encoding="utf-8")


def environment(session: Path | None, **more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("LOADSCOPE_")}
    variables = {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}
    return variables if session is None else {**variables, "LOADSCOPE_SESSION": str(session)}


def argv(**options: Any) -> list[str]:
    return [sys.executable, str(HOST), json.dumps(options)]


def run(
    models: list[Path], session: Path | None = None, *, path: str = "", threads: tuple[Path, ...] = (), **options: Any
) -> Ran:
    """Load the models in one host process, one after the other; with a session, under the probe."""
    options["threads"] = [str(one) for one in threads]
    done = subprocess.run(
        argv(models=[str(one) for one in models], **{"tp": 2, **options}),
        env=environment(session, PYTHONPATH=os.pathsep.join(filter(None, [str(ROOT), path]))),
        capture_output=True, text=True, check=False, timeout=900,
    )  # fmt: skip
    said = {Path(one["model"]).name: one for one in map(json.loads, done.stdout.splitlines())}
    return Ran(said, done.stderr, done.returncode, recorded_by_model(session) if session is not None else {})


def run_processes(model: Path, session: Path) -> tuple[Counter[str], list[dict[str, Any]]]:
    """Load as two processes, one rank each, as torchrun starts them: the events by kind and rank, what each said."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    hosts = [
        subprocess.Popen(
            argv(models=[str(model)], tp=2, launches=True),
            env=environment(session, RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
                            MASTER_PORT=str(port)),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    told = [host.communicate(timeout=300)[0] for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0], told
    found: Counter[str] = Counter()
    for stream in (session / "streams").glob("*.sqlite"):
        found.update(f"{kind} {rank}" for _, kind, rank, _ in events_of(stream) if kind in COUNTED)
    return found, [json.loads(text.splitlines()[-1]) for text in told]


def events_of(stream: Path) -> list[tuple[int, str, int, int]]:
    """(seq, kind, rank, t_ns) of every event of a stream."""
    db = sqlite3.connect(f"file:{stream}?mode=ro", uri=True)
    rows = db.execute("SELECT e.seq, t.value, e.rank, e.t_ns FROM event e JOIN text t ON t.id = e.kind ORDER BY e.seq")
    found = rows.fetchall()
    db.close()
    return found


def recorded_by_model(session: Path) -> dict[str, Counter[str]]:
    """What was recorded of each model, from where its checkpoint was opened to where the next one was."""
    out: dict[str, Counter[str]] = {}
    for stream in sorted((session / "streams").glob("*.sqlite")):
        db = sqlite3.connect(f"file:{stream}?mode=ro", uri=True)
        paths = dict(db.execute("SELECT b.seq, t.value FROM body_checkpoint_opened b JOIN text t ON t.id = b.path"))
        db.close()
        name = ""
        for seq, kind, _, _ in events_of(stream):
            name = Path(paths[seq]).name if seq in paths else name
            out.setdefault(name, Counter())[kind] += 1
    return out
