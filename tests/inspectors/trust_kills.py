"""How much of a killed host's work is not in its recording, in processor time of the thread that loads.

In that time a busy machine, which gives the host a turn now and then, does not make the loss look larger than it is.
"""

from __future__ import annotations

LIMIT_MS = 100

TIMED_LOADER = """
import os, time
out = os.open({times!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def default_loader(param, loaded_weight):
    param.values[:] = loaded_weight.values
    if len(loaded_weight.values) == 1: os.write(out, b"%d\\n" % time.thread_time_ns())
"""


def lost_ms(done_ns: list[int], recorded: int) -> float:
    """`done_ns` are the times at which calls were done, of which the first `recorded` are in the file."""
    missing = done_ns[recorded:]
    return (missing[-1] - missing[0]) / 1e6 if missing else 0.0
