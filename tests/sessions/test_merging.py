"""Sessions of several ranks or hosts as one: nothing lost, clocks brought together, nothing half-written."""

from __future__ import annotations

import sqlite3

import pytest

from inspectors.probe.events import LoaderCalled, ModelLoaded, ProcessStarted
from inspectors.probe.recorder import Recorder
from sessions.errors import SessionError
from sessions.manifest import Manifest, Outcome
from sessions.merging import merge


@pytest.fixture
def of_rank(tmp_path):
    """Records a session in which one rank made some loader calls."""

    def record(rank, names=("a", "b", "c"), state="ok"):
        folder = tmp_path / f"rank{rank}"
        (folder / "streams").mkdir(parents=True)
        Manifest(id=folder.name, engine="native", tp=rank + 1, outcome=Outcome(state)).write(folder)
        recorder = Recorder(folder)
        recorder.point(ProcessStarted(pid=rank))
        for name in names:
            recorder.end(recorder.begin(LoaderCalled(checkpoint_name=name, parameter=f"p.{name}"), rank))
        recorder.point(ModelLoaded(parameters=len(names)), rank)
        recorder.close()
        (folder / "host.log").write_text(f"rank {rank} says\nbye\n")
        (folder / "host.log.times").write_text(f"{rank} 0\n{rank + 5} 12\n")
        return folder

    return record


def told(session):
    return sorted((e.rank, e.kind, e.body.checkpoint_name) for e in session.of_kinds(LoaderCalled.kind))


def moved(folder, by_ns):
    """As if the session had been recorded on a machine whose monotonic clock began at another time."""
    path = next((folder / "streams").glob("*.sqlite"))
    db = sqlite3.connect(path)
    db.execute("UPDATE event SET t_ns = t_ns - ?", (by_ns,))
    db.execute("UPDATE rollup SET first_t_ns = first_t_ns - ?, last_t_ns = last_t_ns - ?", (by_ns, by_ns))
    db.execute("UPDATE meta SET value = value - ? WHERE key = 'opened_monotonic_ns'", (by_ns,))
    db.commit()
    db.close()
    return folder


def test_every_event_of_every_rank_is_there(of_rank, tmp_path, opened):
    folders = [of_rank(0), of_rank(1), of_rank(2)]
    parts = [opened(folder) for folder in folders]
    merged = opened(merge(folders, tmp_path / "all"))
    assert len(merged) == sum(len(part) for part in parts)
    assert told(merged) == sorted(one for part in parts for one in told(part))
    assert (merged.damage, merged.is_complete, len(merged.streams)) == ((), True, 3)
    assert (merged.manifest.tp, merged.manifest.engine) == (3, "native")


def test_clocks_of_other_machines_are_brought_together(of_rank, tmp_path, opened):
    """The second was recorded after the first; by its own clock it was hours earlier."""
    first, second = of_rank(0), moved(of_rank(1), 3 * 3600 * 10**9)
    merged = opened(merge([first, second], tmp_path / "both"))
    times = {rank: [e.t_ns for e in merged.of_kinds(LoaderCalled.kind) if e.rank == rank] for rank in (0, 1)}
    assert max(times[0]) < min(times[1]) < max(times[0]) + 60 * 10**9
    assert [entry["shift_ns"] != 0 for entry in merged.manifest.extra["merged_from"]] == [False, True]


def test_one_machines_sessions_keep_their_times(of_rank, tmp_path, opened):
    first, second = of_rank(0), of_rank(1)
    before = [e.t_ns for e in opened(second).of_kinds(LoaderCalled.kind)]
    merged = opened(merge([first, second], tmp_path / "both"))
    assert [e.t_ns for e in merged.of_kinds(LoaderCalled.kind) if e.rank == 1] == before


def test_logs_follow_each_other_with_their_times(of_rank, tmp_path, opened):
    merged = opened(merge([of_rank(0), of_rank(1)], tmp_path / "both"))
    assert [line.text for line in merged.log_lines(0, 9)] == ["rank 0 says", "bye", "rank 1 says", "bye"]
    assert [line.t_ns for line in merged.log_lines(0, 9)] == [0, 5, 1, 6]


def test_the_worst_outcome_counts(of_rank, tmp_path, opened):
    folders = [of_rank(0), of_rank(1, state="failed"), of_rank(2, state="killed")]
    assert opened(merge(folders, tmp_path / "all")).manifest.outcome.state == "failed"


def test_a_session_without_a_stream_is_named_and_nothing_is_left(of_rank, tmp_path):
    whole, empty = of_rank(0), of_rank(1)
    next((empty / "streams").glob("*.sqlite")).unlink()
    with pytest.raises(SessionError, match="rank1: no stream"):
        merge([whole, empty], tmp_path / "both")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rank0", "rank1"]


def test_one_session_is_nothing_to_merge(of_rank, tmp_path):
    with pytest.raises(SessionError, match="at least two"):
        merge([of_rank(0)], tmp_path / "one")
