"""The host's output is kept byte for byte, with the offset at which every line begins."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from workbench.hostlog import HostLog

OUTPUT = b"one\n\ntwo\r\nthree\xff\nno end"
STARTS = [0, 4, 5, 10, 17]


def copied(folder: Path, chunks: list[bytes]) -> bytes:
    """What is repeated when the host writes these chunks one after the other."""
    reader, writer = os.pipe()
    echo = io.BytesIO()
    with os.fdopen(reader, "rb") as pipe:
        log = HostLog(folder, pipe, echo)
        log.start()
        for chunk in chunks:
            seen = echo.tell() + os.write(writer, chunk)
            while echo.tell() < seen:
                assert log.is_alive()
        os.close(writer)
        log.finish(10)
    return echo.getvalue()


@pytest.mark.parametrize("size", [1, 3, len(OUTPUT)])
def test_lines_begin_where_they_begin_however_the_output_is_cut(tmp_path, size):
    chunks = [OUTPUT[at : at + size] for at in range(0, len(OUTPUT), size)]
    assert copied(tmp_path, chunks) == OUTPUT
    assert (tmp_path / "host.log").read_bytes() == OUTPUT
    rows = [line.split() for line in (tmp_path / "host.log.times").read_text(encoding="ascii").splitlines()]
    assert [int(offset) for _, offset in rows] == STARTS
    times = [int(t_ns) for t_ns, _ in rows]
    assert times == sorted(times)


def test_a_host_that_prints_nothing_has_an_empty_log(tmp_path):
    assert copied(tmp_path, []) == b""
    assert (tmp_path / "host.log").read_bytes() == b""
    assert (tmp_path / "host.log.times").read_bytes() == b""
