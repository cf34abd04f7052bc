"""What the checkpoint declares, and what of it was read and consumed by loader calls."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from inspectors.probe.events import TensorListed
from sessions.coverage import elements, grid
from sessions.dtypes import item_bits, spelled
from sessions.ledger import Write, ledger
from sessions.session import Session


@dataclass(frozen=True)
class Consumption:
    """One checkpoint tensor: whether it was read, by how many loader calls it was used, and how much of it went in.

    The bytes are over all ranks together, each byte once; None when the session does not hold it (level `calls`,
    or a write whose source is no plain box of the tensor).
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    size_bytes: int
    is_read: bool
    calls: int
    parameters: tuple[str, ...]
    consumed_bytes: int | None

    @property
    def never_consumed_bytes(self) -> int | None:
        """Bytes that no parameter took, None when not known."""
        return None if self.consumed_bytes is None else self.size_bytes - self.consumed_bytes


def header(session: Session) -> Mapping[str, TensorListed]:
    """The tensors that the checkpoint's headers declare, by name, in the order of the files."""
    return session.kept("header", lambda: _header(session))


def _header(session: Session) -> dict[str, TensorListed]:
    fields = ("checkpoint_name", "dtype", "shape", "file", "begin", "end")
    out: dict[str, TensorListed] = {}
    for row in session.rows("tensor.listed", fields):
        name, dtype, shape, file, begin, end = row[6:]
        out.setdefault(name or "", TensorListed(name or "", dtype or "", shape or (), file or "", begin or 0, end or 0))
    return out


def consumption(session: Session) -> tuple[Consumption, ...]:
    """What became of every tensor of the header, and of tensors that were read without being listed."""
    return session.kept("consumption", lambda: _consumption(session))


def _consumption(session: Session) -> tuple[Consumption, ...]:
    known = ledger(session)
    calls: dict[str, int] = defaultdict(int)
    users: dict[str, dict[str, None]] = defaultdict(dict)
    writes: dict[str, list[Write]] = defaultdict(list)
    for (_, parameter), made in known.calls.items():
        for call in made:
            calls[call.checkpoint_name] += 1
            users[call.checkpoint_name][parameter] = None
    for made_writes in known.writes.values():
        for write in made_writes:
            writes[write.checkpoint_name].append(write)
    read = {row[6]: row for row in session.rows("tensor.read", ("checkpoint_name", "dtype", "shape", "size_bytes"))}
    listed = header(session)
    out = []
    for name in {**listed, **{n: None for n in read if n not in listed}}:
        if name in listed:
            one = listed[name]
            dtype, shape, size = one.dtype, one.shape, one.end - one.begin
        else:
            dtype, shape, size = (read[name][7] or "", read[name][8] or (), read[name][9] or 0)
        # blocks of several numbers are read, and written, as bytes
        read_shape, read_dtype = (read[name][8] or (), read[name][7] or "") if name in read else (shape, dtype)
        used = _consumed_bytes(read_shape, read_dtype, size, writes[name], calls[name], has_writes=known.has_writes)
        is_read = name in read or calls[name] > 0
        out.append(Consumption(name, spelled(dtype), shape, size, is_read, calls[name], tuple(users[name]), used))
    return tuple(out)


def _consumed_bytes(
    shape: tuple[int, ...], dtype: str, size: int, writes: list[Write], calls: int, *, has_writes: bool
) -> int | None:
    if calls == 0:
        return 0
    if not has_writes or any(not _has_source(w, shape) for w in writes if w.elements):
        return None
    boxes = {(w.source_start or (0,), w.source_length or (1,)) for w in writes if w.elements}
    found = grid(shape, sorted(boxes))
    if found is None:
        return None
    count = elements(shape)
    used = count - found.never
    return used * size // count if item_bits(dtype) % 8 or not item_bits(dtype) else used * item_bits(dtype) // 8


def _has_source(write: Write, shape: tuple[int, ...]) -> bool:
    return len(write.source_start) == len(shape) == len(write.source_length)
