"""What is shown when something is missing, broken, hostile or still coming."""

from pathlib import Path

import pytest
from tui_driver import opened_at

from inspectors.probe.events import (
    EngineFound,
    LoaderCalled,
    ParameterRegistered,
    ProcessStarted,
    StageFailed,
    WeightsMapped,
)
from inspectors.probe.recorder import Recorder
from sessions.manifest import Manifest, Outcome
from workbench.tui import snapshot as folding
from workbench.tui.screens.start import StartScreen

HOSTILE = "model.[red]layers[/red].0.{e|mlp}.\x1b[31mgate\x07.weight"
FAILED = Outcome("failed", exit_code=1, duration_s=0.5)


def recorded(folder: Path, *bodies, outcome: Outcome | None = FAILED, level: str = "calls") -> Path:
    """A session whose events are these, with one rank."""
    folder.mkdir(parents=True, exist_ok=True)
    Manifest(name="a load", tp=1, engine="native", level=level, outcome=outcome).write(folder)
    recorder = Recorder(folder)
    for body in bodies:
        recorder.point(body, 0)
    recorder.close()
    return folder


async def test_a_session_in_which_nothing_was_recorded_says_so_on_every_screen(tmp_path):
    async with opened_at(recorded(tmp_path / "s", ProcessStarted(pid=1))) as it:
        await it.opened()
        for key, told in (
            ("t", "process 1 started"),
            ("p", "No parameters."),
            ("d", "No decisions."),
            ("K", "No kernels."),
            ("f", "findings"),
            ("l", "No log."),
        ):
            await it.press(key)
            await it.shows(told)


async def test_a_folder_that_is_no_session_gives_two_lines_in_its_pane(tmp_path):
    async with opened_at(tmp_path) as it:
        await it.shows("a session: neither")
        assert "Give the folder" in it.text
        await it.press("t", "p", "slash", "escape", "n", "question_mark")
        await it.shows("questions")


async def test_a_manifest_of_a_newer_schema_is_told_and_nothing_breaks(tmp_path):
    folder = recorded(tmp_path / "s", ProcessStarted(pid=1))
    (folder / "session.json").write_text('{"schema": 99}', encoding="utf-8")
    async with opened_at(folder) as it:
        await it.shows("schema 99")


async def test_names_with_markup_and_escapes_stay_text(tmp_path):
    folder = recorded(
        tmp_path / "s",
        ParameterRegistered(parameter=HOSTILE, dtype="float32", shape=(2, 2), size_bytes=16),
        LoaderCalled(checkpoint_name=HOSTILE, parameter=HOSTILE, tensor_shape=(2, 2), parameter_shape=(2, 2)),
        StageFailed(error="ValueError", message=f"bad {HOSTILE}\x1b]0;title\x07", parameter=HOSTILE),
    )
    async with opened_at(folder, (200, 50)) as it:
        await it.opened()
        for key in "tpdKemfl":
            await it.press(key)
            await it.pilot.pause()
            assert "\x1b" not in it.text
            assert "\x07" not in it.text
        await it.press("p")
        await it.shows("[red]layers[/red]")
        assert "{e|mlp}" in it.text
        assert "\\x1b[31mgate\\x07" in it.text


async def test_a_damaged_stream_opens_with_what_is_left_and_says_that_it_is_incomplete(tmp_path):
    folder = recorded(tmp_path / "s", *(EngineFound(engine=f"engine {n}") for n in range(3000)), outcome=None)
    stream = next((folder / "streams").glob("*.sqlite"))
    data = bytearray(stream.read_bytes())
    data[len(data) // 2 :] = b"\0" * (len(data) - len(data) // 2)
    stream.write_bytes(bytes(data))
    async with opened_at(folder) as it:
        await it.until(lambda: "incomplete" in it.text or "unreadable" in it.text, "told")
        assert "internal error" not in it.text


async def test_a_host_that_was_killed_is_shown_as_killed(tmp_path):
    folder = recorded(tmp_path / "s", WeightsMapped(model_class="M"), outcome=Outcome("killed", signal="SIGKILL"))
    async with opened_at(folder) as it:
        await it.shows("✗ killed")


async def test_a_fault_in_one_question_stays_in_its_pane(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def broken(_session):
        raise RuntimeError("planted")

    monkeypatch.setattr(folding, "decisions", broken)
    async with opened_at(recorded(tmp_path / "s", WeightsMapped(model_class="M"))) as it:
        await it.opened()
        await it.press("d")
        await it.shows("planted")
        kept = next((tmp_path / "state").rglob("error-*.txt"))
        assert "RuntimeError: planted" in kept.read_text(encoding="utf-8")
        await it.press("t")
        await it.shows("M.load_weights")


async def test_a_live_session_grows_on_the_screen_and_follows_its_end(tmp_path):
    Manifest(name="live", tp=1).write(tmp_path)
    recorder = Recorder(tmp_path)
    recorder.point(EngineFound(engine="first"))
    recorder.flush()
    async with opened_at(tmp_path) as it:
        await it.shows("● live")
        await it.press("G")
        for n in range(60):
            recorder.point(LoaderCalled(parameter=f"layer.{n}.weight", checkpoint_name=f"layer.{n}.weight"), 0)
        recorder.flush()
        await it.shows("59.weight")
        Manifest(name="live", tp=1, outcome=Outcome("ok", exit_code=0, duration_s=1.0)).write(tmp_path)
        recorder.close()
        await it.shows("recorded")


async def test_the_start_screen_opens_without_sessions_and_refuses_what_it_cannot_do(tmp_path):
    async with opened_at(None, folder=tmp_path / "none") as it:
        await it.shows("none yet in this folder")
        await it.press("o")
        await it.shows("without a way to start a host")


async def test_the_start_screen_starts_a_scenario_and_opens_what_the_launcher_made(tmp_path):
    asked = []

    def launch(model, engine, tp, level, is_paused, scenario):
        asked.append((model, engine, tp, level, is_paused, scenario))
        return recorded(tmp_path / "made", WeightsMapped(model_class="Made"))

    async with opened_at(None, folder=tmp_path, scenarios=(("a-defect", "told"),), launcher=launch) as it:
        await it.shows("a-defect")
        await it.press("b")
        await it.until(lambda: not isinstance(it.app.screen, StartScreen), "session opened")
        await it.shows("Made.load_weights")
        assert asked == [("", "native", 1, "ledger", True, "a-defect")]


async def test_the_form_checks_its_four_lines_before_it_starts(tmp_path):
    asked = []

    def launch(model, engine, tp, level, is_paused, scenario):
        asked.append((model, engine, tp, level, is_paused, scenario))
        raise OSError("planted refusal")

    async with opened_at(None, folder=tmp_path, launcher=launch) as it:
        await it.press("o")
        await it.shows("load a checkpoint")
        await it.press("enter")
        await it.shows("no such folder")
        it.app.screen.query_one("#form-checkpoint").value = str(tmp_path)
        it.app.screen.query_one("#form-tp").value = "none"
        await it.press("enter")
        await it.shows("tp is a number")
        it.app.screen.query_one("#form-tp").value = "4"
        await it.press("enter")
        await it.shows("planted refusal")
        assert asked == [(str(tmp_path), "native", 4, "ledger", False, None)]


async def test_a_broken_manifest_is_listed_with_its_reason(tmp_path):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "session.json").write_text("{", encoding="utf-8")
    async with opened_at(None, folder=tmp_path) as it:
        await it.shows("✗")
        await it.shows("JSON: Expecting")
        assert "live" not in it.text


@pytest.mark.parametrize("rank", [None, 0])
async def test_rank_switching_wraps_round(tmp_path, rank):
    folder = recorded(tmp_path / "s", WeightsMapped(model_class="M"))
    async with opened_at(folder) as it:
        await it.opened()
        await it.press(*(["greater_than_sign"] * (2 if rank is None else 1)))
        assert it.session.desk.rank == rank
