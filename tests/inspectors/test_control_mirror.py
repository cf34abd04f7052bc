"""A session is mirrored through its host's port: all of it, as it grows, and nothing else, whatever the host says."""

from __future__ import annotations

import json
import shutil
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inspectors.probe import sessionfiles
from sessions.control import Control, ControlError
from sessions.errors import SessionError
from sessions.liveness import is_running
from sessions.mirroring import Mirror
from sessions.session import Session
from workbench.attaching.remote import follow

GOLDEN = Path(__file__).resolve().parents[2] / "sessions" / "golden" / "fp8-skip"
LOAD = """
from toyengine.models.toy import Model
from toyengine.reading import iterate, open_checkpoint
model = Model(); model.load_weights(iterate(open_checkpoint("x"))); print(model.values())
"""
RESULT = "{'a.weight': [1, 2], 'b.weight': [3, 4], 'c.weight': [5]}\n"


class Recorded:
    """Answers as the host of a session folder would; `change` makes a liar of it."""

    pid = 1

    def __init__(self, folder, change=lambda asked, reply: reply) -> None:
        self.folder, self.change, self.asked = folder, change, []

    def ask(self, asked, seconds=0.0):
        del seconds
        self.asked.append(asked)
        do = {"files": lambda folder, _: sessionfiles.listing(folder), "piece": sessionfiles.piece,
              "tables": sessionfiles.tables, "rows": sessionfiles.rows}[asked["do"]]  # fmt: skip
        try:
            reply = do(self.folder, asked)
        except ValueError as error:
            raise ControlError(str(error)) from error
        reply = self.change(asked, json.loads(json.dumps(reply)))
        if not isinstance(reply, dict):
            raise ControlError("no reply")
        return reply


@pytest.fixture
def recorded(tmp_path):
    return Path(shutil.copytree(GOLDEN, tmp_path / "recorded"))


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "mirror"
    made.mkdir()
    return made


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def told(session_folder):
    session = Session.open(session_folder)
    try:
        events = session.page(0, len(session))
        return [(e.seq, e.t_ns, e.dur_ns, e.kind, e.rank, e.body) for e in events], session.counts(), session.log_count
    finally:
        session.close()


def test_a_mirror_of_a_recording_holds_the_same_events_log_and_manifest(recorded, folder):
    assert Mirror(Recorded(recorded), folder, "there").pull()
    assert told(folder) == told(recorded)
    assert (folder / "session.json").read_bytes() == (recorded / "session.json").read_bytes()
    (stream,) = (recorded / "streams").glob("*.sqlite")
    assert files_in(folder) == ["host.log", "session.json", f"streams/{stream.name}"]


def test_a_mirror_that_is_taken_up_again_asks_for_what_is_new_alone(recorded, folder):
    first = Mirror(Recorded(recorded), folder, "there")
    first.pull()
    with (recorded / "host.log").open("a", encoding="utf-8") as log:
        log.write("one more line\n")
    again = Mirror(Recorded(recorded), folder, "there")
    assert again.pull()
    assert again.bytes < first.bytes / 5
    assert told(folder) == told(recorded)
    assert not again.pull()


def test_a_stream_of_another_process_with_the_same_id_is_taken_anew(recorded, folder):
    Mirror(Recorded(recorded), folder, "there").pull()
    other = recorded.parent / "other"
    shutil.copytree(
        GOLDEN.parent / "double-write",
        other,
    )
    (stream,), (mine,) = (other / "streams").glob("*.sqlite"), (folder / "streams").glob("*.sqlite")
    stream.rename(stream.with_name(mine.name))
    Mirror(Recorded(other), folder, "there").pull()
    assert told(folder)[:2] == told(other)[:2]


def test_a_live_host_is_mirrored_to_its_end_with_ends_of_spans(toy, folder, stream_reader):
    toy.write_manifest(is_paused_at_start=True, listen="127.0.0.1:0", id="live", created="now")
    host = toy.start(LOAD)
    try:
        note = noted(toy, host)
        control = Control.at("127.0.0.1", int(note["tcp"].rpartition(":")[2]), note["token"])
        mirror = Mirror(control, folder, "there")
        assert mirror.identity() == "live now"
        control.wait(30)
        mirror.pull()
        mirror.mark(is_followed=True, of="live now")
        session = Session.open(folder)
        assert is_running(session)
        while "weights.mapped" not in session.kinds():
            with Control.connect(toy.session) as stepping:
                stepping.run("any")
                stepping.wait(30)
                mirror.pull()
                session.refresh()
        (mapped,) = session.of_kinds("weights.mapped")
        assert mapped.is_open
        following = threading.Thread(target=follow, args=(mirror, control, threading.Event()))
        following.start()
        with Control.connect(toy.session) as other:
            other.release()
            out = host.communicate(timeout=60)[0]
        following.join(30)
        assert (out, following.is_alive()) == (RESULT, False)
        assert session.refresh()
        (mapped,) = session.of_kinds("weights.mapped")
        assert not mapped.is_open
        session.close()
        here, there = (stream_reader(next((one / "streams").glob("*.sqlite"))) for one in (folder, toy.session))
        assert [e.body["parameter"] for e in here if e.kind == "loader.called"] == ["a.weight", "b.weight", "c.weight"]
        assert here == there[: len(here)]
        mirror.mark(is_followed=False, of="live now")
        assert not is_running(Session.open(folder))
    finally:
        host.kill()
        host.communicate()


def noted(toy, host):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and host.poll() is None:
        for path in (toy.session / "control").glob("*.json"):
            return json.loads(path.read_text("utf-8"))
        time.sleep(0.01)
    raise AssertionError(host.stderr.read())


def renamed(name):
    return lambda asked, reply: (
        {"files": [{**one, "name": name} for one in reply["files"]]} if asked["do"] == "files" else reply
    )


STRANGE = (
    "../escaped.sqlite", "streams/../../1-0.sqlite", "/etc/1-0.sqlite", "control/1.json", "door/x.py", "a\0b",
    "stream/1-0.sqlite", "streams/1-0.sqlite/../../x", "session.json\n",
)  # fmt: skip


@pytest.mark.parametrize("name", STRANGE)
def test_a_file_that_no_session_has_is_never_written(recorded, folder, name):
    Mirror(Recorded(recorded, renamed(name)), folder, "there").pull()
    assert files_in(folder.parent) == sorted(f"recorded/{one}" for one in files_in(recorded))


def lying(do, **changes):
    return lambda asked, reply: {**reply, **changes} if asked["do"] == do else reply


TABLES = {name: ["key", "value"] for name in ("meta", "text", "field", "event", "rollup")}
LIES = [
    lying("files", files="all"),
    lying("files", files=[{"name": "session.json", "bytes": 1}] * 10_000),
    lying("piece", data="!!!"),
    lying("piece", data=7),
    lying("tables", tables=[]),
    lying("tables", tables={**TABLES, "x; DROP": ["a"]}),
    lying("tables", tables={**TABLES, "body_x": ['a" INTEGER']}),
    lying("tables", tables={**TABLES, "body_x": ["a", "a"]}),
    lying("tables", tables={**TABLES, "body_x": [f"c{n}" for n in range(5000)]}),
    lying("tables", tables={"meta": ["key", "value"]}),
    lying("tables", tables=TABLES),
    lying("rows", rows=None),
    lying("rows", rows=[[1]]),
    lying("rows", rows=[["1", 2, 3]]),
    lying("rows", rows=[[1, {}, 3], [1, 2, 3]]),
    lying("rows", rows=[[1, [{}], 3]]),
    lying("rows", rows=[[1, "\ud800", 3]]),
    lying("rows", rows=[[1, 1 << 70, *[1] * 5]]),
]


@pytest.mark.parametrize("change", LIES)
def test_a_host_that_lies_is_told_of_and_nothing_it_says_becomes_a_session(recorded, folder, change):
    with suppress(SessionError):
        Mirror(Recorded(recorded, change), folder, "there").pull()
    streams = [one for one in files_in(folder) if one.startswith("streams")]
    assert set(files_in(folder)) <= {"host.log", "session.json", *streams}
    if streams:  # what lied was another file
        assert [f"streams/{one.name}" for one in (recorded / "streams").iterdir()] == streams
        assert told(folder)[0] == told(recorded)[0]


@pytest.mark.parametrize("numbers", [(5, 4), (0, 1), (3, 3)])
def test_rows_that_were_not_asked_for_end_the_copy(recorded, folder, numbers):
    rows = [[number, *[1] * 6] for number in numbers]
    with pytest.raises(SessionError, match=r"not asked for|a row"):
        Mirror(Recorded(recorded, lying("rows", rows=rows, is_all=False)), folder, "there", max_bytes=1 << 20).pull()


def test_no_more_is_taken_than_is_wanted_even_of_a_host_that_never_comes_to_an_end(recorded, folder):
    with pytest.raises(SessionError, match="more than 10,000 bytes"):
        Mirror(Recorded(recorded), folder, "there", max_bytes=10_000).pull()

    def endless(asked, reply):
        if asked["do"] != "rows" or asked["table"] != "rollup":
            return reply
        width, after = 7, asked["after"]
        return {"rows": [[after + n + 1, *[1] * (width - 1)] for n in range(100)], "is_all": False}

    with pytest.raises(SessionError, match="there"):
        Mirror(Recorded(recorded, endless), folder, "there", max_bytes=1 << 20).pull()
    assert list(folder.rglob("*.sqlite")) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
KEYS = st.sampled_from(["files", "data", "tables", "rows", "is_all"])


@given(at=st.integers(0, 25), key=KEYS, value=JSON)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_reply_at_any_moment_is_taken_or_refused(tmp_path_factory, at, key, value):
    folder = tmp_path_factory.mktemp("fuzzed")
    host = Recorded(GOLDEN)
    host.change = lambda _, reply: {**reply, key: value} if len(host.asked) == at + 1 else reply
    with suppress(SessionError, ControlError):
        Mirror(host, folder, "there").pull()
    shutil.rmtree(folder)


def test_a_stream_that_the_host_cannot_read_is_left_out_and_named(recorded, folder):
    (recorded / "streams" / "9-0.sqlite").write_bytes(b"no database at all")
    mirror = Mirror(Recorded(recorded), folder, "there")
    assert mirror.pull()
    assert list(mirror.unread) == ["streams/9-0.sqlite"]
    assert told(folder)[0] == told(recorded)[0]
