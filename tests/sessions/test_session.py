"""Sessions: paging, live refresh, crashes, damage, schemas and several processes."""

import json
import shutil
import sqlite3

import pytest

from inspectors.probe import recorder as recorder_module
from inspectors.probe.events import LoaderCalled, ShardSplit
from inspectors.probe.recorder import Recorder
from sessions.errors import SessionError
from sessions.event import UnknownBody
from sessions.manifest import Manifest, Outcome
from sessions.session import Session


def only_stream(folder):
    return next((folder / "streams").glob("*.sqlite"))


def test_events_come_back_as_they_were_recorded(tmp_path, opened):
    recorder = Recorder(tmp_path)
    body = LoaderCalled(
        "disk.q", "model.qkv", "P", "bf16", (2, 3), "bf16", (4, 3), 24, "('q', 0)", 7, "load", "f.py:1", ""
    )
    seq = recorder.begin(body, rank=2)
    inner = recorder.point(ShardSplit("model.qkv", "disk.q", 0, 1, 2, 4, "narrow"), rank=2)
    recorder.end(seq)
    recorder.close()
    session = opened(tmp_path)
    event = session.event(seq - 1)
    assert (event.body, event.rank, event.kind, event.stage) == (body, 2, "loader.called", "weight.load")
    assert event.dur_ns > 0
    assert [child.seq for child in session.children(event)] == [inner]
    assert session.parent(session.event(inner - 1)) == event
    assert session.find(event.ref) == event
    assert session.is_complete


def test_pages_join_to_the_whole_session(loaded):
    every = loaded.page(0, len(loaded))
    assert [e.position for e in every] == list(range(len(loaded)))
    pieces = [e for start in range(0, len(loaded), 7) for e in loaded.page(start, start + 7)]
    assert pieces == every
    assert loaded.page(len(loaded), len(loaded) + 5) == []
    assert loaded.events([5, 3, 3, 10**9]) == [every[3], every[5]]


def test_counts_agree_with_a_count_of_the_pages(loaded):
    found = {}
    for event in loaded.page(0, len(loaded)):
        found[event.kind] = found.get(event.kind, 0) + 1
    assert loaded.counts() == found


def test_events_of_a_kind_come_in_order_between_two_positions(loaded):
    calls = [e.position for e in loaded.page(0, len(loaded)) if e.kind in {"loader.called", "shard.split"}]
    half = calls[len(calls) // 2]
    assert [e.position for e in loaded.of_kinds("loader.called", "shard.split")] == calls
    assert [e.position for e in loaded.of_kinds("loader.called", "shard.split", start=half)] == [
        c for c in calls if c >= half
    ]
    assert [e.position for e in loaded.of_kinds("loader.called", "shard.split", stop=half)] == [
        c for c in calls if c < half
    ]


def test_a_growing_session_shows_new_rows_and_the_ends_of_open_spans(tmp_path, opened):
    recorder = Recorder(tmp_path)
    seq = recorder.begin(LoaderCalled(checkpoint_name="a"))
    recorder.flush()
    session = opened(tmp_path)
    assert session.event(seq - 1).is_open
    assert not session.refresh()
    recorder.end(seq, LoaderCalled(checkpoint_name="a", outcome="returned"))
    recorder.point(ShardSplit(parameter="b"))
    recorder.flush()
    assert session.refresh()
    assert session.event(seq - 1).body.outcome == "returned"
    assert session.event(len(session) - 1).body == ShardSplit(parameter="b")
    recorder.close()
    session.refresh()
    assert session.streams[0].is_closed


def content(folder):
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in sorted((folder / "streams").iterdir())}


@pytest.mark.parametrize("keeps_lock_file", [True, False])
def test_a_killed_host_leaves_a_session_that_reads_whole_and_stays_untouched(crashed, opened, keeps_lock_file):
    if not keeps_lock_file:
        for path in (crashed / "streams").glob("*-shm"):
            path.unlink()
    before = content(crashed)
    session = opened(crashed)
    assert [e.body.start for e in session.of_kinds("shard.split")] == list(range(500))
    assert session.event(len(session) - 1).is_open
    assert not session.is_complete
    session.refresh()
    session.close()
    assert content(crashed) == before


def test_a_session_on_read_only_media_opens(crashed, opened):
    for path in (crashed / "streams").iterdir():
        path.chmod(0o444)
    (crashed / "streams").chmod(0o555)
    try:
        assert opened(crashed).count("shard.split") == 500
    finally:
        (crashed / "streams").chmod(0o755)


@pytest.mark.parametrize("tenths", [5, 7, 9])
def test_a_truncated_stream_gives_what_is_readable_and_says_so(recordings, opened, tmp_path, tenths):
    whole = opened(recordings.write_session(tmp_path / "whole", recordings.Plan(layers=60)))
    shutil.copytree(whole.folder, tmp_path / "cut")
    path = only_stream(tmp_path / "cut")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * tenths // 10])
    session = opened(tmp_path / "cut")
    events = session.page(0, len(session))
    assert "malformed" in session.damage[0]
    assert not session.is_complete
    assert len(events) > len(whole) // 10
    told = {(e.seq, e.t_ns, e.kind) for e in events}
    assert told <= {(e.seq, e.t_ns, e.kind) for e in whole.page(0, len(whole))}


def test_a_stream_of_no_bytes_is_one_whose_writer_has_not_begun(tmp_path, opened):
    (tmp_path / "streams").mkdir()
    (tmp_path / "streams" / "7-0.sqlite").touch()
    assert len(opened(tmp_path)) == 0


@pytest.mark.parametrize("data", [b"SQLite format 3\x00", b"\x00" * 5000, b"SQLite format 3\x00" + b"\xff" * 9000])
def test_a_session_without_a_readable_stream_names_the_file(tmp_path, data):
    (tmp_path / "streams").mkdir()
    (tmp_path / "streams" / "7-0.sqlite").write_bytes(data)
    with pytest.raises(SessionError, match=r"7-0\.sqlite"):
        Session.open(tmp_path)


def test_one_broken_stream_leaves_the_others_readable(loaded, opened):
    (loaded.folder / "streams" / "9-0.sqlite").write_bytes(b"nothing")
    session = opened(loaded.folder)
    assert len(session) == len(loaded)
    assert "9-0.sqlite" in session.damage[0]


@pytest.mark.parametrize("place", ["manifest", "stream"])
def test_a_newer_schema_is_refused_with_both_numbers(loaded, place):
    if place == "manifest":
        path = loaded.folder / "session.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 99}))
    else:
        with sqlite3.connect(only_stream(loaded.folder)) as db:
            db.execute("UPDATE meta SET value='99' WHERE key='schema'")
    with pytest.raises(SessionError, match="schema 99, this version reads up to 1"):
        Session.open(loaded.folder)


def test_unknown_kinds_and_fields_are_kept_and_counted(loaded, opened):
    with sqlite3.connect(only_stream(loaded.folder)) as db:
        last = db.execute("SELECT max(seq), max(id) FROM event, text").fetchone()
        db.executemany(
            "INSERT INTO text VALUES(?,?)", [(last[1] + 1, "quark.spun"), (last[1] + 2, "up"), (last[1] + 3, "[1,[2]]")]
        )
        db.execute("INSERT INTO event VALUES(?,1,0,?,?,0,3)", (last[0] + 1, last[1] + 1, last[1] + 2))
        db.execute("INSERT INTO rollup VALUES(?,?,1,?,1,1)", (last[0] + 1, last[1] + 1, last[0] + 1))
        db.execute('CREATE TABLE "body_quark_spun"(seq INTEGER PRIMARY KEY, "flavour", "parts")')
        db.execute("INSERT INTO body_quark_spun VALUES(?,?,?)", (last[0] + 1, last[1] + 2, last[1] + 3))
        db.executemany("INSERT INTO field VALUES('quark.spun',?,?,?)", [("flavour", "text", 0), ("parts", "json", 1)])
        db.execute('ALTER TABLE body_shard_split ADD COLUMN "colour"')
        db.execute("INSERT INTO field VALUES('shard.split','colour','int',9)")
        db.execute('UPDATE body_shard_split SET "colour"=5')
    session = opened(loaded.folder)
    event = session.event(len(session) - 1)
    assert event.body == UnknownBody(facts={"flavour": "up", "parts": (1, (2,))})
    assert session.unknown_kinds == {"quark.spun": 1}
    split = next(session.of_kinds("shard.split"))
    assert split.extra == {"colour": 5}
    assert isinstance(split.body, ShardSplit)


def test_a_field_that_an_older_writer_lacked_has_its_default(loaded, opened):
    with sqlite3.connect(only_stream(loaded.folder)) as db:
        db.execute("DELETE FROM field WHERE kind='shard.split' AND name='operation'")
    assert next(opened(loaded.folder).of_kinds("shard.split")).body.operation == ""


def streams_of_two_processes(folder, monkeypatch, times):
    """Two streams whose events have the given times (ns)."""
    for number, moments in enumerate(times):
        clock = iter([0, *moments, *[moments[-1]] * 9])
        recorder = Recorder(folder)
        with monkeypatch.context() as patch:
            patch.setattr(recorder_module.time, "monotonic_ns", lambda clock=clock: next(clock))
            for n, _ in enumerate(moments):
                recorder.point(ShardSplit(parameter=f"{number}", start=n), rank=number)
            recorder.close()


def test_streams_of_several_processes_are_merged_by_time(tmp_path, monkeypatch, opened):
    times = [[10, 30, 50, 70], [20, 40, 60, 61, 62]]
    streams_of_two_processes(tmp_path, monkeypatch, times)
    session = opened(tmp_path)
    splits = [e for e in session.page(0, len(session)) if e.kind == "shard.split"]
    expected = sorted((t, number, n) for number, moments in enumerate(times) for n, t in enumerate(moments))
    assert [(e.t_ns, e.rank, e.body.start) for e in splits] == expected
    assert [session.position(e.stream, e.seq) for e in splits] == [e.position for e in splits]
    assert [session.find(e.ref) for e in splits] == splits
    assert session.events([e.position for e in reversed(splits)]) == splits
    assert list(session.of_kinds("shard.split", start=4)) == [e for e in splits if e.position >= 4]


def test_a_process_that_joins_later_does_not_move_positions_already_given(tmp_path, monkeypatch, opened):
    streams_of_two_processes(tmp_path, monkeypatch, [[10, 30]])
    session = opened(tmp_path)
    before = session.page(0, len(session))
    streams_of_two_processes(tmp_path, monkeypatch, [[20, 40]])
    assert session.refresh()
    assert session.page(0, len(before)) == before
    assert len(session) == 2 * len(before)


def test_a_manifest_is_written_whole_and_keeps_what_it_does_not_know(tmp_path):
    told = Manifest(
        id="x", command=("a", "b"), tp=4, outcome=Outcome("failed", 1, None, "now", 2.5), extra={"mood": [1]}
    )
    told.write(tmp_path)
    assert Manifest.read(tmp_path) == told
    assert [p.name for p in tmp_path.iterdir()] == ["session.json"]


@pytest.mark.parametrize(
    ("text", "says"), [("{", "not JSON"), ("[]", "JSON object"), ('{"tp": "four"}', "'tp' is 'four'")]
)
def test_a_malformed_manifest_is_told_with_its_place(tmp_path, text, says):
    (tmp_path / "session.json").write_text(text)
    with pytest.raises(SessionError, match=says):
        Session.open(tmp_path)


def test_a_folder_that_is_no_session_is_told(tmp_path):
    with pytest.raises(SessionError, match="not a session"):
        Session.open(tmp_path)
    with pytest.raises(SessionError, match="no such session folder"):
        Session.open(tmp_path / "gone")


@pytest.mark.parametrize("ref", ["", "#", "#x", "#0", "#999999", "#7:1", "#1:2:3", "#" + "9" * 40])
def test_a_reference_to_no_event_is_an_error(loaded, ref):
    with pytest.raises(SessionError):
        loaded.find(ref)


def test_log_lines_know_when_they_came(tmp_path, opened):
    (tmp_path / "streams").mkdir()
    lines = ["first", "second ü", "third"]
    offsets = [0, 6, 16]
    (tmp_path / "host.log").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "host.log.times").write_text("".join(f"{100 * (n + 1)} {at}\n" for n, at in enumerate(offsets)))
    session = opened(tmp_path)
    assert [(line.number, line.t_ns, line.text) for line in session.log_lines(0, 9)] == [
        (0, 100, "first"),
        (1, 200, "second ü"),
        (2, 300, "third"),
    ]
    assert [session.log_line_at(t) for t in (99, 100, 250, 999)] == [-1, 0, 1, 2]
    with (tmp_path / "host.log").open("a") as file:
        file.write(" goes on\nfourth\n")
    assert session.refresh()
    assert [line.text for line in session.log_lines(2, 9)] == ["third goes on", "fourth"]
    assert session.log_count == 4
