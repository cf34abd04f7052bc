"""How a checkpoint tensor lies in its file: the shape it is read in, bits of an element, bytes of an element."""

from __future__ import annotations

from dataclasses import dataclass

from inspectors.probe.events import TensorListed
from sessions.coverage import elements
from sessions.dtypes import item_bits, spelled


@dataclass(frozen=True)
class Stored:
    """One tensor of a header: `shape` is the one in which it is read, its row-major elements have `bits` each (or 0).

    A tensor whose numbers are read several at a time, such as blocks, is read as bytes: `is_packed`.
    `begin`/`end` are byte offsets from the start of `file`.
    """

    name: str
    file: str
    dtype: str
    shape: tuple[int, ...]
    bits: int
    begin: int
    end: int
    is_packed: bool = False

    def bytes_of(self, number: int) -> tuple[int, int, int]:
        """Where element `number` lies: first byte, byte after the last, and the bit in the first byte it begins at."""
        first = number * self.bits
        return self.begin + first // 8, self.begin - (-(first + self.bits) // 8), first % 8

    def elements_in(self, begin: int, end: int) -> tuple[int, int]:
        """The elements, first and after the last, that have a bit in the bytes begin..end-1 of the file."""
        first, last = max(begin, self.begin) - self.begin, min(end, self.end) - self.begin
        if first >= last or not self.bits:
            return 0, 0
        return first * 8 // self.bits, min(-(-last * 8 // self.bits), elements(self.shape))


def stored(listed: TensorListed, read_shape: tuple[int, ...] | None = None) -> Stored:
    """How a listed tensor lies in its file; `read_shape` is the one it was read in, where that is recorded."""
    shape, own = stored_shape(listed), item_bits(listed.dtype)
    size_bits = (listed.end - listed.begin) * 8
    if (
        read_shape is not None
        and elements(read_shape)
        and size_bits in (elements(read_shape) * own, elements(read_shape) * 8)
    ):
        shape = read_shape
    count = elements(shape)
    bits = size_bits // count if count and size_bits % count == 0 else 0
    place = (listed.file, spelled(listed.dtype), shape, bits, listed.begin, listed.end)
    return Stored(listed.checkpoint_name, *place, is_packed=bits == 8 and elements(listed.shape) * own != size_bits)


def stored_shape(listed: TensorListed | None) -> tuple[int, ...]:
    """The shape in which a tensor is read: of one stored in blocks the last size counts the bytes of a row."""
    if listed is None or not elements(listed.shape):
        return listed.shape if listed is not None else ()
    size = listed.end - listed.begin
    if item_bits(listed.dtype) and size * 8 == elements(listed.shape) * item_bits(listed.dtype):
        return listed.shape
    return (*listed.shape[:-1], size // elements(listed.shape[:-1]))
