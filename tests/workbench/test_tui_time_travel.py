"""Moving through a recording: what every screen shows is what had been recorded until then, counted from the file."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from tui_driver import opened_at

from sessions.moments import moments, parameters_at
from sessions.parameters import parameters
from sessions.session import Session
from workbench.tui.launching import Replayed
from workbench.tui.playing import SPEEDS


@pytest.fixture(scope="module")
def recorded(demo) -> Path:
    return Path(demo.json["session"])


@pytest.fixture(scope="module")
def asked(recorded):
    """Asks the file itself; a position is seq - 1, since one process recorded it."""
    (stream,) = (recorded / "streams").glob("*.sqlite")
    db = sqlite3.connect(f"file:{stream}?mode=ro", uri=True)
    yield lambda query, *values: db.execute(query, values).fetchall()
    db.close()


WRITES = """SELECT count(*) FROM body_weight_written b JOIN text t ON t.id = b.parameter JOIN event e ON e.seq = b.seq
            WHERE t.value = ? AND e.rank = ? AND b.seq - 1 <= ?"""
SEQS = "SELECT seq FROM body_{} ORDER BY seq"


def test_views_made_for_a_moment_are_those_that_are_made_from_nothing(recorded, asked):
    session = Session.open(recorded)
    last = len(session) - 1
    calls = [seq - 1 for (seq,) in asked(SEQS.format("loader_called"))]
    visited = [calls[300], calls[301], calls[300], 0, last, calls[-1], calls[40], last - 1, calls[41]]
    for until in visited:
        quick, plain = parameters_at(session, until), parameters(session, until)
        assert [(v.name, v.rank) for v in quick] == [(v.name, v.rank) for v in plain]
        for one, other in zip(quick[::7], plain[::7], strict=True):
            assert (one.writes, one.calls, one.coverage) == (other.writes, other.calls, other.coverage)
            assert one.cells(14) == other.cells(14)
            assert len(one.writes) == asked(WRITES, one.name, one.rank, until)[0][0]
    session.close()


def test_one_step_back_makes_anew_only_what_the_step_is_about(recorded, asked):
    session = Session.open(recorded)
    moments(session).warm(14, lambda: False)
    (call,) = asked("SELECT seq - 1 FROM body_loader_called ORDER BY seq LIMIT 1 OFFSET 500")[0]
    after, before = parameters_at(session, call), parameters_at(session, call - 1)
    changed = [one.name for one, other in zip(after, before, strict=True) if one is not other]
    assert changed == [session.event(call).body.parameter]
    session.close()


async def test_parameters_show_what_was_filled_at_now(recorded, asked):
    calls = [seq - 1 for (seq,) in asked(SEQS.format("loader_called"))]
    async with opened_at(recorded, look="parameters") as it:
        await it.opened()
        await it.until(lambda: it.session.snapshot.is_indexed and not it.session.snapshot.is_pending, "indexed")

        async def counted(at: int) -> None:
            await it.until(lambda: it.session.snapshot.now == at, f"now is {at}")
            views = it.session.snapshot.parameters
            found = asked("SELECT count(*) FROM body_weight_written WHERE seq - 1 <= ?", at)[0][0]
            assert sum(len(view.writes) for view in views) == found
            assert it.session.view.reading.snapshot.now == at

        await it.press("0")
        await counted(0)
        assert it.session.snapshot.parameters == ()
        await it.press("n")
        await counted(calls[0])
        for _ in range(3):
            await it.press("n")
        await counted(calls[3])
        await it.press("N")
        await counted(calls[2])
        await it.press("S")
        await counted(calls[2] - 1)
        await it.press("s", "s")
        await counted(calls[2] + 1)
        named = asked(
            "SELECT b.seq - 1, t.value FROM body_loader_called b JOIN text t ON t.id = b.parameter ORDER BY 1"
        )
        layers = [(at, name.split(".")[2] if ".layers." in name else "") for at, name in named]
        forwards = next(at for at, layer in layers if at > calls[2] + 1 and layer != "0")
        await it.press("right_curly_bracket")
        await counted(forwards)
        here = dict(layers)[forwards]
        await it.press("left_curly_bracket")
        await counted(max(at for at, layer in layers if at < forwards and layer != here))
        await it.press("dollar_sign")
        await counted(len(it.session.session) - 1)


async def test_the_timeline_stands_on_now_and_what_comes_later_is_quiet(recorded, asked):
    calls = [seq - 1 for (seq,) in asked(SEQS.format("loader_called"))]
    async with opened_at(recorded, look="timeline") as it:
        await it.opened()
        await it.until(lambda: it.session.snapshot.is_indexed and not it.session.snapshot.is_pending, "indexed")
        await it.press("0", "n", "n")
        await it.until(lambda: it.session.snapshot.now == calls[1], "at the second call")
        view = it.session.view
        assert view.row_at(calls[1]) == it.app.screen.query_one("#list").cursor
        later = view.cells(view.rows[min(len(view.rows) - 1, view.row_at(calls[400]))], 40)
        assert any(span.style == "f" for span in later[2].spans)


async def test_kernels_count_the_launches_until_now(recorded, asked):
    launches = [seq - 1 for (seq,) in asked(SEQS.format("kernel_launched"))]
    async with opened_at(recorded, look="Kernels") as it:
        await it.opened()
        await it.until(lambda: not it.session.snapshot.is_pending, "folded")
        assert sum(one.launches for one in it.session.snapshot.kernels) == len(launches)
        it.session.move_now(launches[100])
        await it.until(lambda: it.session.snapshot.now == launches[100], "moved")
        assert sum(one.launches for one in it.session.snapshot.kernels) == 101
        await it.press("0")
        await it.until(lambda: it.session.snapshot.now == 0, "start")
        assert it.session.snapshot.kernels == ()


async def test_the_log_stands_at_the_line_of_now_also_under_a_filter(recorded):
    async with opened_at(recorded, look="log") as it:
        await it.opened()
        await it.until(lambda: not it.session.snapshot.is_pending, "folded")
        session = it.session.session
        lines = session.log_lines(0, session.log_count)
        middle = next(p for p in range(0, len(session), 50) if session.log_line_at(session.event(p).t_ns) >= 0)
        wanted = session.log_line_at(session.event(middle).t_ns)
        it.session.move_now(middle)
        await it.until(lambda: it.session.snapshot.now == middle, "moved")
        assert it.session.selected()[1].number == wanted
        needle = lines[-1].text.strip()[:12]
        it.session.set_lens(filter=needle)
        kept = [line.number for line in lines if needle.lower() in line.text.lower()]
        view = it.session.view
        expected = max([at for at, number in enumerate(kept) if number <= wanted], default=0)
        assert view.row_at(middle) == expected


async def test_a_recording_plays_to_its_end_and_a_step_stops_it(recorded):
    async with opened_at(recorded, look="parameters") as it:
        await it.opened()
        await it.until(lambda: it.session.snapshot.is_indexed and not it.session.snapshot.is_pending, "indexed")
        playing = it.session.playing
        await it.press("space")
        assert playing.is_on
        await it.shows("events/s")
        first = playing.speed
        assert first in SPEEDS
        await it.until(lambda: (it.session.desk.now or 0) > 0, "now moves by itself")
        await it.press("full_stop")
        assert playing.speed > first
        await it.press("t", "p")
        assert playing.is_on  # another question is still about the same moment
        await it.press("N")
        assert not playing.is_on
        at = it.session.desk.now
        playing.tick()
        assert it.session.desk.now > at
        playing.speed = SPEEDS[-1]
        await it.press("space")
        await it.until(lambda: not playing.is_on, "over")
        assert it.session.desk.now is None


async def test_x_goes_to_the_exception_and_says_where_there_is_none(recorded, failed_demo):
    async with opened_at(Path(failed_demo.json["session"]), look="timeline") as it:
        await it.opened()
        await it.until(lambda: not it.session.snapshot.is_pending, "folded")
        session = it.session.session
        (failed,) = (event.position for event in session.of_kinds("stage.failed"))
        await it.press("0", "X")
        await it.until(lambda: it.session.snapshot.now == failed, "at the failure")
        await it.shows("ShapeError")
    async with opened_at(recorded) as it:
        await it.opened()
        await it.press("X")
        await it.shows("no exception passed")


async def test_a_replay_from_the_screens_shows_its_verdict_and_stands_on_the_first_difference(recorded):
    calls = []

    def replayer(session, progress):
        calls.append(session)
        progress(10, 20)
        return Replayed(("recorded  demo", "verdict   the first event that differs is only in the replay"), 1000)

    async with opened_at(recorded, look="timeline", replayer=replayer) as it:
        await it.opened()
        await it.until(lambda: it.session.snapshot.is_indexed and not it.session.snapshot.is_pending, "indexed")
        await it.press("colon", *"replay", "enter")
        await it.shows("is only in the replay")
        assert calls == [recorded]
        await it.press("escape")
        await it.until(lambda: it.session.snapshot.now == 1000, "at the difference")
        assert it.session.query_one("#list").cursor == it.session.view.row_at(1000)
    async with opened_at(recorded) as it:
        await it.opened()
        await it.press("ctrl+r")
        await it.shows("loadscope replay")


async def test_the_cursor_stands_where_now_is_however_soon_the_fold_comes(recorded, asked):
    calls = [seq - 1 for (seq,) in asked(SEQS.format("loader_called"))]
    async with opened_at(recorded, look="timeline") as it:
        await it.opened()
        await it.until(lambda: it.session.snapshot.is_indexed and not it.session.snapshot.is_pending, "indexed")
        for at in calls[200:1000:200]:
            it.session.move_now(at)
            it.session.draw()  # before the list's own message about its cursor
            await it.until(lambda at=at: it.session.snapshot.now == at, "folded")
            assert it.session.query_one("#list").cursor == it.session.view.row_at(at)
