"""What the checkpoint declares, and what of it was read and consumed by loader calls."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from inspectors.probe.events import TensorListed
from sessions.coverage import Box, Numbers, elements, grid
from sessions.dtypes import item_bits, spelled
from sessions.ledger import Write, ledger, names_in
from sessions.maps import boxes_of_range, map_of
from sessions.session import Session
from sessions.stored import Stored, stored


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


def _header(session: Session, where: tuple[str, str] | None = None) -> dict[str, TensorListed]:
    fields = ("checkpoint_name", "dtype", "shape", "file", "begin", "end")
    out: dict[str, TensorListed] = {}
    for row in session.rows("tensor.listed", fields, where=where):
        name, dtype, shape, file, begin, end = row[6:]
        out.setdefault(name or "", TensorListed(name or "", dtype or "", shape or (), file or "", begin or 0, end or 0))
    return out


def listed(session: Session, name: str) -> TensorListed | None:
    """One tensor as its header declares it, without reading the others."""
    return _header(session, ("checkpoint_name", name)).get(name)


def tensor(session: Session, name: str) -> Stored | None:
    """How a tensor of the header lies in its file, None for one that is not listed."""
    found = listed(session, name)
    if found is None:
        return None
    read = list(session.rows("tensor.read", ("shape",), where=("checkpoint_name", name)))
    return stored(found, read[-1][6] if read else None)


def tensors(session: Session) -> Mapping[str, Stored]:
    """How every tensor of the header lies in its file, by name."""
    return session.kept("stored", lambda: _tensors(session))


def _tensors(session: Session) -> dict[str, Stored]:
    read = {row[6]: row[7] for row in session.rows("tensor.read", ("checkpoint_name", "shape"))}
    return {name: stored(one, read.get(name)) for name, one in header(session).items()}


def writes_by_tensor(session: Session) -> Mapping[str, Sequence[tuple[int, str, Write]]]:
    """Every write with its rank and parameter, by the tensor it took from."""
    return session.kept("writes by tensor", lambda: _writes_by_tensor(session))


def _writes_by_tensor(session: Session) -> dict[str, list[tuple[int, str, Write]]]:
    out: dict[str, list[tuple[int, str, Write]]] = defaultdict(list)
    for (rank, parameter), made in ledger(session).writes.items():
        for write in made:
            for name in names_in(write.checkpoint_name):
                out[name].append((rank, parameter, write))
    return out


def consumption(session: Session) -> tuple[Consumption, ...]:
    """What became of every tensor of the header, and of tensors that were read without being listed."""
    return session.kept("consumption", lambda: _consumption(session))


def _consumption(session: Session) -> tuple[Consumption, ...]:
    known = ledger(session)
    calls: dict[str, int] = defaultdict(int)
    users: dict[str, dict[str, None]] = defaultdict(dict)
    for (_, parameter), made in known.calls.items():
        for call in made:
            for name in names_in(call.checkpoint_name):
                calls[name] += 1
                users[name][parameter] = None
    writes = writes_by_tensor(session)
    read = {row[6]: row for row in session.rows("tensor.read", ("checkpoint_name", "dtype", "shape", "size_bytes"))}
    places = tensors(session)
    out = []
    for name, one in places.items():
        used = _consumed_bytes(one, [w for _, _, w in writes.get(name, ())], calls[name], known.has_writes)
        size, shape = one.end - one.begin, header(session)[name].shape
        is_read = name in read or calls[name] > 0
        out.append(Consumption(name, one.dtype, shape, size, is_read, calls[name], tuple(users[name]), used))
    for name, row in read.items():
        if name not in places:
            dtype, shape, size = spelled(row[7] or ""), row[8] or (), row[9] or 0
            one = Stored(name, "", dtype, shape, item_bits(dtype), 0, size)
            used = _consumed_bytes(one, [w for _, _, w in writes.get(name, ())], calls[name], known.has_writes)
            out.append(Consumption(name, dtype, shape, size, True, calls[name], tuple(users[name]), used))
    return tuple(out)


def _consumed_bytes(one: Stored, writes: Sequence[Write], calls: int, has_writes: bool) -> int | None:
    size, count = one.end - one.begin, elements(one.shape)
    if calls == 0 and not writes:
        return 0
    if not has_writes:
        return None
    writes = [w for w in writes if w.elements and w.source != "constant"]
    if any(w.source_length == one.shape and not any(w.source_start) for w in writes):
        return size if all(_has_source(w, one) for w in writes) else None
    never = unconsumed(one, writes)
    if never is None:
        return None
    left = sum(elements(length) for _, length in never)
    return (count - left) * size // count if count else 0


def unconsumed(one: Stored, writes: Sequence[Write]) -> list[Box] | None:
    """The elements of a tensor, as it is read, that none of the writes took; None when some took unknown ones."""
    writes = [w for w in writes if w.elements and w.source != "constant"]
    shape = one.shape or (1,)
    if not all(_has_source(w, one) for w in writes):
        return None
    if all(len(w.source_start) == len(one.shape) == len(w.source_length) for w in writes):
        found = grid(shape, sorted({(w.source_start or (0,), w.source_length or (1,)) for w in writes}))
        return None if found is None else found.never_boxes
    stretches = [runs for w in writes if (at := map_of(w, one.shape)) is not None and (runs := at.runs()) is not None]
    if len(stretches) < len(writes):
        return None
    left = _between(np.concatenate(stretches), elements(shape))
    return [box for begin, end in left for box in boxes_of_range(begin, end, shape)]


def _between(runs: Numbers, count: int) -> list[tuple[int, int]]:
    """The stretches of 0..count-1 that are in no run."""
    runs = runs[np.argsort(runs[:, 0], kind="stable")]
    reached = np.concatenate([[0], np.maximum.accumulate(runs[:, 1])])
    begins = np.concatenate([runs[:, 0], [count]])
    gaps = np.flatnonzero(begins > reached)
    return [(int(reached[n]), int(begins[n])) for n in gaps]


def _has_source(write: Write, one: Stored) -> bool:
    is_box = len(write.source_start) == len(one.shape) == len(write.source_length)
    return is_box or (write.source_offset >= 0 and len(write.source_strides) == len(write.start))
