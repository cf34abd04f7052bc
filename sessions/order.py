"""The order of events over several streams by time, held as arrays and built as far as it is asked for."""

from __future__ import annotations

from array import array

from sessions.stream import Stream

CHUNK = 20_000
FIRST_CHUNK = 1_000


class Order:
    """Position ↔ (stream, seq). With one stream it is arithmetic; with several, streams are merged by `t_ns`.

    Positions once given stay: an event that arrives late from one process stands behind those already shown.
    """

    def __init__(self) -> None:
        self._streams: list[Stream] = []
        self._stream_at = array("H")
        self._seq_at = array("I")
        self._positions: list[array[int]] = []
        self._total = 0

    @property
    def is_merged(self) -> bool:
        """True when more than one stream has to be merged."""
        return len(self._streams) > 1

    def update(self, streams: list[Stream]) -> None:
        """Take in new streams and new rows; nothing is read before a position is asked for."""
        was_single = len(self._streams) == 1
        if was_single and len(streams) > 1:
            known = self._total
            self._stream_at.extend([0] * known)
            self._seq_at.extend(range(1, known + 1))
            self._positions = [array("I", range(known))]
        self._streams = list(streams)
        if self.is_merged:
            self._positions += [array("I") for _ in range(len(streams) - len(self._positions))]
        self._total = sum(s.count for s in streams)

    def __len__(self) -> int:
        return self._total

    def locate(self, start: int, stop: int) -> list[tuple[int, int, int]]:
        """Runs (stream, first seq, last seq) that make up the positions start..stop-1, in order."""
        if not self.is_merged:
            return [(0, start + 1, stop)] if stop > start else []
        self._extend(stop)
        runs: list[tuple[int, int, int]] = []
        for position in range(start, min(stop, len(self._seq_at))):
            stream, seq = self._stream_at[position], self._seq_at[position]
            if runs and runs[-1][0] == stream and runs[-1][2] == seq - 1:
                runs[-1] = (stream, runs[-1][1], seq)
            else:
                runs.append((stream, seq, seq))
        return runs

    def position(self, stream: int, seq: int) -> int:
        """The position of an event, -1 when the session does not hold it."""
        if not 0 <= stream < len(self._streams) or not 0 < seq <= self._streams[stream].count:
            return -1
        if not self.is_merged:
            return seq - 1
        while len(self._positions[stream]) < seq and self._extend(len(self._seq_at) + CHUNK):
            pass
        return self._positions[stream][seq - 1] if seq <= len(self._positions[stream]) else -1

    def seqs_before(self, position: int) -> list[int]:
        """For each stream the greatest seq whose position is below `position`."""
        if not self.is_merged:
            return [min(position, self._total)] * len(self._streams)
        self._extend(position)
        from bisect import bisect_left

        return [bisect_left(p, position) for p in self._positions]

    def _extend(self, stop: int) -> bool:
        """Merge until `stop` positions are known; False when there was nothing left to merge."""
        grown = False
        while len(self._seq_at) < min(stop, self._total):
            if not self._merge_some():
                return grown
            grown = True
        return grown

    def _merge_some(self) -> bool:
        import numpy as np

        heads = []
        limit = CHUNK if len(self._seq_at) else FIRST_CHUNK
        for number, stream in enumerate(self._streams):
            done = len(self._positions[number])
            rows = stream.rows(
                "SELECT seq, t_ns FROM event WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?",
                (done, stream.count, limit),
            )
            if rows:
                # A span recorded when it was over has an earlier time than its neighbours: the order is that of seq.
                times = np.maximum.accumulate(np.array([row[1] for row in rows], dtype=np.int64))
                heads.append((number, done, times, done + len(rows) < stream.count))
        if not heads:
            return False
        limits = [times[-1] for _, _, times, has_more in heads if has_more]
        cuts = [len(t) if not limits else int(np.searchsorted(t, min(limits), "right")) for _, _, t, _ in heads]
        numbers = np.concatenate([np.full(cut, h[0]) for h, cut in zip(heads, cuts, strict=True)])
        seqs = np.concatenate([np.arange(h[1] + 1, h[1] + 1 + cut) for h, cut in zip(heads, cuts, strict=True)])
        keys = np.concatenate([h[2][:cut] for h, cut in zip(heads, cuts, strict=True)])
        order = np.argsort(keys, kind="stable")
        base = len(self._seq_at)
        self._stream_at.frombytes(numbers[order].astype(np.uint16).tobytes())
        self._seq_at.frombytes(seqs[order].astype(np.uint32).tobytes())
        for (number, _, _, _), cut in zip(heads, cuts, strict=True):
            if cut:
                places = np.flatnonzero(numbers[order] == number) + base
                self._positions[number].frombytes(places.astype(np.uint32).tobytes())
        return True
