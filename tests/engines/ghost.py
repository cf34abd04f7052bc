"""Ghost loads: checkpoints whose bytes say where they are, loaded without any probe, and the ledger's account of one.

The oracle: plane p of a checkpoint holds, at byte N of its data, the byte `N >> 8p`. Loading all planes and putting the
bytes of a parameter together gives for each the place in the checkpoint that it came from. Elements that a loader casts
do not keep their bytes; their planes hold small numbers instead, four bits of the element's number each.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
PLANES, DIGITS = 3, 6
DRIVER = """
from inspectors.probe.bootstrap import arm; arm()
import json, sys, torch
torch.set_num_threads(1)
from backends.native.loader import LoadOptions, load
for model, tp in json.loads(sys.argv[1]):
    load(model, LoadOptions(tp_size=tp))
"""
COMPUTED = ("norm.weight", "A_log")
"""What a reader of GGUF files computes before a loader is called."""
CONSTANT, NEVER, UNKNOWN, CAST = -1, -2, -3, -4


class Stored(NamedTuple):
    """A tensor in a checkpoint file: where its bytes are among those of all files, and its dtype's name."""

    file: Path
    begin: int
    end: int
    first: int
    dtype: str


def stored_tensors(folder: Path) -> dict[str, Stored]:
    """The tensors of a checkpoint by name, as its files' own libraries read them."""
    found: dict[str, Stored] = {}
    before = 0
    for file in sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.gguf")):
        listed = gguf_tensors(file) if file.suffix == ".gguf" else safetensors_tensors(file)
        for name, begin, end, dtype in listed:
            found[name] = Stored(file, begin, end, before + begin, dtype)
        before += file.stat().st_size
    return found


def safetensors_tensors(file: Path) -> list[tuple[str, int, int, str]]:
    with file.open("rb") as opened:
        size = int.from_bytes(opened.read(8), "little")
        header = json.loads(opened.read(size))
    return [
        (name, 8 + size + one["data_offsets"][0], 8 + size + one["data_offsets"][1], one["dtype"])
        for name, one in header.items()
        if name != "__metadata__"
    ]


def gguf_tensors(file: Path) -> list[tuple[str, int, int, str]]:
    import gguf

    return [
        (one.name, int(one.data_offset), int(one.data_offset + one.n_bytes), one.tensor_type.name)
        for one in gguf.GGUFReader(file).tensors
    ]


def write_plane(folder: Path, target: Path, plane: int) -> Path:
    """A copy of a checkpoint in which byte N is byte `plane` of the number N."""
    copied = Path(shutil.copytree(folder, target))
    for stored in stored_tensors(copied).values():
        numbers = np.arange(stored.first, stored.first + stored.end - stored.begin, dtype=np.int64)
        overwrite(stored, (numbers >> (8 * plane)).astype(np.uint8))
    return copied


NUMBERS = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64,
           "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "I32": torch.int32, "I64": torch.int64,
           "I8": torch.int8, "U8": torch.uint8}  # fmt: skip


def write_digit(folder: Path, target: Path, digit: int) -> Path:
    """A copy of a checkpoint in which the element that begins at byte N is the number `N >> 4 * digit & 15`."""
    copied = Path(shutil.copytree(folder, target))
    for stored in stored_tensors(copied).values():
        dtype = NUMBERS.get(stored.dtype)
        if dtype is not None:
            numbers = torch.arange(stored.first, stored.first + stored.end - stored.begin, dtype.itemsize)
            values = (numbers >> (4 * digit) & 15).to(torch.float32).to(dtype)
            overwrite(stored, values.view(torch.uint8).numpy())
    return copied


def overwrite(stored: Stored, content: np.ndarray) -> None:
    with stored.file.open("r+b") as opened:
        opened.seek(stored.begin)
        opened.write(content.tobytes())


def plain_load(folder: Path, tp: int) -> dict[str, torch.Tensor]:
    """The parameters of every rank as `load_weights` leaves them: nothing looks at their values."""
    from backends.native import loader

    process, loader.process_weights = loader.process_weights, lambda _: None
    try:
        loaded = loader.load(checkpoint_of(folder), loader.LoadOptions(tp_size=tp))
    finally:
        loader.process_weights = process
    return {f"{rank}/{n}": p.detach() for rank, model in enumerate(loaded.models) for n, p in model.named_parameters()}


def checkpoint_of(folder: Path) -> Path:
    """What a loader is given: the folder, or its GGUF file."""
    files = sorted(folder.glob("*.gguf"))
    return files[0] if files else folder


Ghost = tuple[dict[str, np.ndarray], dict[str, np.ndarray]]
Loaded = dict[str, torch.Tensor]


def joined_planes(loads: list[Loaded]) -> dict[str, np.ndarray]:
    """For every byte of every parameter the byte of the checkpoint it was, of loads of the planes in order."""
    found: dict[str, np.ndarray] = {}
    for plane, loaded in enumerate(loads):
        for name, parameter in loaded.items():
            raw = parameter.contiguous().reshape(-1).view(torch.uint8).numpy().astype(np.int64)
            found[name] = found.get(name, 0) + (raw << (8 * plane))
    return found


def joined_digits(loads: list[Loaded]) -> dict[str, np.ndarray]:
    """For every element of every parameter where in the checkpoint its element began, of loads of the digits."""
    found: dict[str, np.ndarray] = {}
    for digit, loaded in enumerate(loads):
        for name, parameter in loaded.items():
            values = parameter.contiguous().reshape(-1).to(torch.float32).nan_to_num(0).to(torch.int64).numpy()
            found[name] = found.get(name, 0) + ((values & 15) << (4 * digit))
    return found


def ghost_load(folder: Path, scratch: Path, loaded: Callable[[Path], Loaded], *, has_casts: bool) -> Ghost:
    """For every byte of every parameter the byte of the checkpoint it was, and for every element the same by digits.

    `loaded` gives the parameters as a checkpoint's `load_weights` leaves them, by `RANK/NAME`.
    """
    if max(one.first + one.end - one.begin for one in stored_tensors(folder).values()) > 256**PLANES:
        raise ValueError(f"{folder}: {PLANES} planes can count no more than {256**PLANES:,} bytes")
    planes, digits = list[Loaded](), list[Loaded]()
    for write, loads, count in ((write_plane, planes, PLANES), (write_digit, digits, DIGITS if has_casts else 0)):
        for number in range(count):
            target = write(folder, scratch / f"{write.__name__}-{number}", number)
            # copies: an engine may load the next plane over the parameters it gave
            loads.append({name: one.clone() for name, one in loaded(target).items()})
            shutil.rmtree(target)
    return joined_planes(planes), joined_digits(digits)


def record(loads: list[tuple[Path, int]], session: Path) -> list[list[dict[str, Any]]]:
    """Load each checkpoint under the probe at level `ledger`, in one host process; the writes of each load."""
    session.mkdir(parents=True)
    manifest = {"level": "ledger", "engines": ["backends.engines.native"],
                "inspectors": ["inspectors.checkpoint", "inspectors.weights"]}  # fmt: skip
    (session / "session.json").write_text(json.dumps(manifest))
    variables = {key: value for key, value in os.environ.items() if not key.startswith("LOADSCOPE_")}
    asked = json.dumps([(str(checkpoint_of(folder)), tp) for folder, tp in loads])
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, asked], capture_output=True, text=True, check=False, cwd=session,
        env={**variables, "PYTHONPATH": str(ROOT), "LOADSCOPE_SESSION": str(session), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return [events for _, events in writes_by_load(session)][: len(loads)]


def writes_by_load(session: Path) -> list[tuple[int, list[dict[str, Any]]]]:
    """(seq of `checkpoint.opened`, events of kinds `weight.written` and others that concern them) in order."""
    (path,) = (session / "streams").glob("*.sqlite")
    return writes_in(path)


def writes_in(path: Path) -> list[tuple[int, list[dict[str, Any]]]]:
    """See `writes_by_load`; of one stream."""
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    texts = dict(db.execute("SELECT id, value FROM text"))
    rows = {
        seq: (texts[kind], parent, rank)
        for seq, kind, parent, rank in db.execute("SELECT seq, kind, parent, rank FROM event")
    }
    bodies: dict[int, dict[str, Any]] = {}
    for kind in ("weight.written", "loader.called", "write.suspected", "inspector.faulted"):
        fields = db.execute("SELECT name, storage FROM field WHERE kind=? ORDER BY position", (kind,)).fetchall()
        for seq, *values in db.execute(f'SELECT * FROM "body_{kind.replace(".", "_")}"') if fields else ():  # noqa: S608
            bodies[seq] = {
                name: texts[v] if storage == "text" else json.loads(texts[v]) if storage == "json" else v
                for (name, storage), v in zip(fields, values, strict=True)
            }
    db.close()
    loads: list[tuple[int, list[dict[str, Any]]]] = []
    for seq in sorted(rows):
        kind, parent, rank = rows[seq]
        if kind == "checkpoint.opened":
            loads.append((seq, []))
        elif kind in {"weight.written", "write.suspected", "inspector.faulted"}:
            called = bodies.get(parent, {})
            loads[-1][1].append({**bodies[seq], "kind": kind, "rank": rank, "call": called})
    return loads


@dataclass
class Account:
    """What the ledger says of every byte of a parameter: its place in the checkpoint, or one of the numbers above."""

    item: int
    shape: tuple[int, ...]
    places: np.ndarray
    casts: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.casts = np.full(len(self.places) // self.item, -1, dtype=np.int64)


def accounts(
    events: list[dict[str, Any]], parameters: dict[str, torch.Tensor], tensors: dict[str, Stored]
) -> dict[str, Account]:
    """The ledger's events of one load, written out byte by byte."""
    found = {
        name: Account(p.element_size(), tuple(p.shape), np.full(p.nbytes, NEVER, dtype=np.int64))
        for name, p in parameters.items()
    }
    for event in events:
        if event["kind"] == "inspector.faulted":
            raise RuntimeError(str(event))
        account = found[f"{event['rank']}/{event['parameter']}"]
        if event["kind"] == "write.suspected" or len(event["start"]) != len(account.shape):
            account.places[:] = UNKNOWN
            continue
        where = tuple(slice(s, s + n) for s, n in zip(event["start"], event["length"], strict=True))
        numbers = np.arange(len(account.casts)).reshape(account.shape)[where].reshape(-1)
        of_bytes = numbers[:, None] * account.item + np.arange(account.item)
        notes = event["source"].split(", ")
        if event["source_offset"] < 0:
            account.places[of_bytes] = CONSTANT if notes[0] == "constant" else UNKNOWN
            continue
        account.places[of_bytes] = CAST
        name = event["checkpoint_name"] or event["call"]["checkpoint_name"]
        steps = np.full(event["length"], event["source_offset"], dtype=np.int64)
        for d, (n, stride) in enumerate(zip(event["length"], event["source_strides"], strict=True)):
            steps += (np.arange(n) * stride).reshape([-1 if d == k else 1 for k in range(len(event["length"]))])
        stored, is_cast = tensors[name], any(note.startswith("cast") for note in notes)
        item = 1 if "bytes" in notes else item_of(event["call"]) if is_cast else account.item
        first = stored.first + steps.reshape(-1) * item
        if is_cast:
            account.casts[numbers] = first
        else:
            account.places[of_bytes] = first[:, None] + np.arange(account.item)
    return found


def item_of(call: dict[str, Any]) -> int:
    """Bytes of an element of the tensor that a call was given."""
    return torch.empty(0, dtype=getattr(torch, call["tensor_dtype"])).element_size()


@dataclass
class Verdict:
    """Elements of one load that the ledger says rightly and wrongly, in bytes."""

    exact: int = 0
    cast: int = 0
    constant: int = 0
    never: int = 0
    unknown: dict[str, int] = field(default_factory=dict)
    wrong: dict[str, int] = field(default_factory=dict)

    @property
    def is_clean(self) -> bool:
        """Nothing is said wrongly, and nothing left open that an engine did not compute before the call."""
        return not self.wrong and all(name.endswith(COMPUTED) for name in self.unknown)


def verdict(found: dict[str, Account], ghost: Ghost) -> Verdict:
    """The ledger's account against the ghost's, byte by byte."""
    by_byte, by_digit = ghost
    out = Verdict()
    for name, account in found.items():
        places, actual = account.places, by_byte[name]
        is_exact, is_constant, is_cast = places >= 0, places == CONSTANT, places == CAST
        digits, told = by_digit.get(name, account.casts), account.casts
        cast_elements = is_cast.reshape(-1, account.item).all(axis=1)
        fixed = actual[is_constant]  # what is not of the data is the same in every plane
        wrong = int((places[is_exact] != actual[is_exact]).sum()) + int((fixed != (fixed & 255) * 0x10101).sum())
        wrong += account.item * int((digits[cast_elements] != told[cast_elements]).sum())
        out.exact += int(is_exact.sum())
        out.cast += int(is_cast.sum())
        out.constant += int(is_constant.sum())
        out.never += int((places == NEVER).sum())
        unknown = int((places == UNKNOWN).sum())
        out.unknown.update({name: unknown} if unknown else {})
        out.wrong.update({name: wrong} if wrong else {})
    return out


def compared(folder: Path, tp: int, events: list[dict[str, Any]], scratch: Path) -> Verdict:
    """The verdict on the recorded events of one load, by ghost loads of the same checkpoint."""
    found = accounts(events, plain_load(folder, tp), stored_tensors(folder))
    has_casts = any((account.places == CAST).any() for account in found.values())
    return verdict(found, ghost_load(folder, scratch, lambda plane: plain_load(plane, tp), has_casts=has_casts))
