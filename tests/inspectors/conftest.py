"""A toy engine without torch, and hosts that run it in processes of their own."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
ARM = "from inspectors.probe.bootstrap import arm; arm()\n"

ENGINE = '''
"""A toy engine: tensors are lists of numbers."""
__version__ = "9.1"
'''

ENGINE_PARTS = {
    "tensors.py": """
class Tensor:
    def __init__(self, values): self.values = list(values)
    shape = property(lambda self: (len(self.values),))
    dtype = "int"
    nbytes = property(lambda self: 8 * len(self.values))
class Parameter(Tensor): pass
class ReadOnlyParameter(Tensor):
    weight_loader = property(lambda self: self._weight_loader)
""",
    "ranks.py": """
import threading
here = threading.local()
def rank(): return getattr(here, "rank", 0)
""",
    "reading.py": """
from toyengine.tensors import Tensor
def open_checkpoint(path): return [("a.weight", [1, 2]), ("b.weight", [3, 4]), ("c.weight", [5])]
def iterate(checkpoint, *, fail_at=None):
    for name, values in checkpoint:
        if name == fail_at:
            raise OSError(f"cannot read {name}")
        yield name, Tensor(values)
""",
    "loading.py": """
def default_loader(param, loaded_weight): param.values[:] = loaded_weight.values
""",
    "skipping.py": """
def is_skipped(prefix, ignored, mapping={}):
    source = "model" if prefix in mapping else "none"
    names_tried = list(mapping.get(prefix, [prefix]))
    return any(name in ignored for name in names_tried)
""",
    "methods.py": """
from toyengine.skipping import is_skipped as decide
from toyengine.tensors import Parameter, ReadOnlyParameter
class Method:
    def create_weights(self, layer, size): raise NotImplementedError
    def finish(self, layer): return None
class Plain(Method):
    def create_weights(self, layer, size):
        if size < 0: raise ValueError(f"size {size} of {layer.prefix}")
        layer.weight = Parameter([0] * size)
        layer.weight.weight_loader = layer.load
class Config:
    @classmethod
    def method(cls, layer, prefix): raise NotImplementedError
class PlainConfig(Config):
    @classmethod
    def method(cls, layer, prefix): decide(prefix, ["lm_head"]); return Plain()
""",
    "models/__init__.py": "",
    "models/toy.py": """
from toyengine.loading import default_loader
from toyengine.methods import PlainConfig
from toyengine.tensors import Parameter, ReadOnlyParameter
class Layer:
    def __init__(self, prefix, size):
        self.prefix = prefix
        self.quant_method = PlainConfig.method(self, prefix)
        self.quant_method.create_weights(self, size)
    def load(self, param, loaded_weight, shard_id=None, *, expert_id=None):
        if len(loaded_weight.values) != len(param.values):
            raise ValueError(f"{self.prefix}: {len(loaded_weight.values)} values for {len(param.values)}")
        default_loader(param, loaded_weight)
class Model:
    def __init__(self, sizes=(2, 2)):
        self.layers = [Layer("a", sizes[0])]
        self.b = ReadOnlyParameter([0] * sizes[1])
        self.b._weight_loader = self.layers[0].load
        self.c = Parameter([0])
        self.loaders = []
    def named_parameters(self): return [("a.weight", self.layers[0].weight), ("b.weight", self.b), ("c.weight", self.c)]
    def load_weights(self, weights):
        params = dict(self.named_parameters())
        for name, tensor in weights:
            loader = getattr(params[name], "weight_loader", default_loader)
            self.loaders.append(loader)
            loader(params[name], loaded_weight=tensor) if name == "b.weight" else loader(params[name], tensor)
        return set(params)
    def values(self): return {name: p.values for name, p in self.named_parameters()}
""",
    "__main__.py": """
import toyengine.ranks
from toyengine.models.toy import Model
from toyengine.reading import iterate, open_checkpoint
model = Model()
model.load_weights(iterate(open_checkpoint("nowhere")))
print(model.values())
""",
}

ADAPTER = """
from inspectors.probe.tracepoint import Engine, Tracepoint as T
ENGINE = Engine(
    name="toy", module="toyengine", distribution="toyengine", rank="toyengine.ranks:rank", command=lambda launch: (),
    tracepoints=(
        T("checkpoint.open", "checkpoint.opened", "toyengine.reading:open_checkpoint"),
        T("tensor.read", "tensor.read", "toyengine.reading:iterate", {"name": "result.0", "tensor": "result.1"}),
        T("method.select", "skip.decided", "toyengine.skipping:is_skipped",
          {"module": "prefix", "tried": "local:names_tried", "expansion_source": "local:source",
           "is_skipped": "result"}),
        T("method.select", "method.selected", "toyengine.methods:Config+.method",
          {"module": "prefix", "config": "cls", "selected": "result"}),
        T("weights.create", "weights.created", "toyengine.methods:Method+.create_weights",
          {"module": "layer.prefix", "method": "self"}),
        T("weight.map", "weights.mapped", "toyengine.models.*:*.load_weights", {"model": "self"}),
        T("weight.load", "loader.called", "toyengine.loading:default_loader",
          {"parameter": "param", "tensor": "loaded_weight"}),
    ),
)
"""

INSPECTORS = ("inspectors.checkpoint", "inspectors.decisions", "inspectors.weights", "inspectors.kernels")


@dataclass(frozen=True)
class Event:
    """A row of a stream, read without any code of the project."""

    seq: int
    dur_ns: int | None
    kind: str
    parent: int
    rank: int
    pid: int
    body: dict[str, Any] = field(default_factory=dict)


def read_stream(path: Path) -> list[Event]:
    with tempfile.TemporaryDirectory() as folder:  # SQLite mends the log of a writer killed while it wrote
        for file in path.parent.glob(f"{path.name}*"):
            if not file.name.endswith("-shm"):
                shutil.copy(file, folder)
        return _events(sqlite3.connect(Path(folder) / path.name))


def _events(db: sqlite3.Connection) -> list[Event]:
    texts = dict(db.execute("SELECT id, value FROM text"))
    pid = int(dict(db.execute("SELECT key, value FROM meta"))["pid"])
    bodies: dict[int, dict[str, Any]] = {}
    for (kind,) in db.execute("SELECT DISTINCT kind FROM field").fetchall():
        fields = db.execute("SELECT name, storage FROM field WHERE kind=? ORDER BY position", (kind,)).fetchall()
        for seq, *values in db.execute(f'SELECT * FROM "body_{kind.replace(".", "_")}"'):  # noqa: S608 - the kinds are our own
            shown = zip(fields, values, strict=True)
            bodies[seq] = {name: value_of(storage, value, texts) for (name, storage), value in shown}
    rows = db.execute("SELECT seq, dur_ns, kind, parent, rank FROM event ORDER BY seq").fetchall()
    db.close()
    return [Event(s, d, texts[k], p, r, pid, bodies.get(s, {})) for s, d, k, p, r in rows]


def value_of(storage: str, value: Any, texts: dict[int, str]) -> Any:
    if storage == "text":
        return texts[value]
    if storage == "json":
        return json.loads(texts[value])
    return bool(value) if storage == "bool" else value


@dataclass(frozen=True)
class Host:
    """What a host process said, and what was recorded of it."""

    code: int
    out: str
    err: str
    events: list[Event]

    def of(self, *kinds: str) -> list[Event]:
        return [event for event in self.events if event.kind in kinds]

    def counts(self) -> Counter[str]:
        return Counter(event.kind for event in self.events)


@dataclass
class Toy:
    """A folder with the toy engine, its adapter and a session."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def session(self) -> Path:
        return self.folder / "session"

    def write_manifest(self, **changes: Any) -> None:
        self.manifest.update(changes)
        self.session.mkdir(exist_ok=True)
        (self.session / "session.json").write_text(json.dumps(self.manifest), encoding="utf-8")

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def environment(self, *, is_armed: bool = True) -> dict[str, str]:
        variables = {k: v for k, v in os.environ.items() if not k.startswith(("LOADSCOPE_", "PYTHON"))}
        variables["PYTHONPATH"] = f"{self.folder}{os.pathsep}{ROOT}"
        if is_armed:
            variables["LOADSCOPE_SESSION"] = str(self.session)
        return variables

    def argv(self, code: str) -> list[str]:
        # -S: a host that has nothing installed, and arms by the code's first line instead of a .pth
        return [sys.executable, "-S", "-c", ARM + code]

    def run(self, code: str, *, is_armed: bool = True, **options: Any) -> Host:
        """Run `code` in a fresh process; the toy engine and our packages can be imported there, torch cannot."""
        done = subprocess.run(
            self.argv(code), env=self.environment(is_armed=is_armed), capture_output=True, text=True, timeout=60,
            check=False, cwd=self.folder, **options,
        )  # fmt: skip
        return Host(done.returncode, done.stdout, done.stderr, self.events())

    def start(self, code: str, **options: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.argv(code), env=self.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            cwd=self.folder, **options,
        )  # fmt: skip

    def events(self) -> list[Event]:
        streams = sorted((self.session / "streams").glob("*.sqlite"))
        return [event for stream in streams for event in read_stream(stream)]


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    made = Toy(tmp_path, {"schema": 1, "level": "calls", "engines": ["toyadapter"], "inspectors": list(INSPECTORS)})
    made.write("toyengine/__init__.py", ENGINE)
    for name, text in ENGINE_PARTS.items():
        made.write(f"toyengine/{name}", text)
    made.write("toyadapter.py", ADAPTER)
    made.write_manifest()
    return made


@pytest.fixture
def load_code() -> str:
    return "import runpy; runpy.run_module('toyengine', run_name='__main__')\n"


@pytest.fixture
def stream_reader() -> Callable[[Path], list[Event]]:
    return read_stream
