"""Every screen on a complete and on a failed session, at two sizes, driven by keys."""

from pathlib import Path

import pytest
from tui_driver import opened_at

from workbench.tui.widgets.longlist import LongList

COMPLETE = {
    "t": ("what happened", "seq  rank  event"),
    "p": ("where did it go", "layers.0"),
    "d": ("why this method", "in_proj_ba"),
    "K": ("what ran", "embed_tokens"),
    "e": ("is it right", "Precision compares two sessions"),
    "m": ("what did it cost", "forward"),
    "f": ("what is wrong", "No findings."),
    "l": ("what the host printed", "filled 81 of 81 parameters"),
}
FAILED = {
    "t": ("what happened", "ShapeError"),
    "p": ("where did it go", "No parameters."),
    "d": ("why this method", "0 of 18"),
    "K": ("what ran", "No kernels. The load failed before forward."),
    "e": ("is it right", "2 modules were built in another precision"),
    "m": ("what did it cost", "create"),
    "f": ("what is wrong", "skip-decision/fused-name"),
    "l": ("what the host printed", "ShapeError"),
}


@pytest.fixture(scope="session")
def complete(demo) -> Path:
    return Path(demo.json["session"])


@pytest.fixture(scope="session")
def failed(failed_demo) -> Path:
    return Path(failed_demo.json["session"])


@pytest.mark.parametrize("size", [(120, 36), (80, 24), (200, 50)])
async def test_each_question_of_a_complete_load_has_its_answer(complete, size):
    async with opened_at(complete, size) as it:
        await it.opened()
        for key, (question, told) in COMPLETE.items():
            await it.press(key)
            await it.shows(told)
            assert (question in it.text.splitlines()[-1]) == (size[0] >= 100)
            assert "recorded" in it.text
            assert "internal error" not in it.text


@pytest.mark.parametrize("size", [(120, 36), (80, 24)])
async def test_each_question_of_a_failed_load_says_what_there_is_and_why_there_is_no_more(failed, size):
    async with opened_at(failed, size) as it:
        await it.opened()
        for key, (_, told) in FAILED.items():
            await it.press(key)
            await it.shows(told)
            assert "✗ failed" in it.text
            assert "internal error" not in it.text


async def test_from_the_start_three_keys_lead_to_the_code_that_decided(failed):
    async with opened_at(None, folder=failed.parent) as it:
        await it.shows("recent sessions")
        screen = it.app.screen
        wanted = next(n for n, row in enumerate(screen.rows) if row.session and row.session.path == failed)
        screen.query_one("#start-list", LongList).cursor = wanted
        await it.press("enter")
        await it.until(lambda: len(it.app.screen_stack) == 3, "session laid over the start")
        await it.opened()
        await it.shows("skip-decision/fused-name")
        await it.press("1")
        await it.shows("from the fallback table, not the model")
        assert "never tried" in it.text
        await it.press("enter")
        await it.shows("def is_layer_skipped")
        await it.press("q")
        await it.shows("from the fallback table, not the model")
        await it.press("q")
        await it.shows("how it came about")
        await it.press("q")
        await it.shows("recent sessions")


async def test_the_start_says_how_a_session_ended_and_its_root_cause(failed):
    async with opened_at(None, folder=failed.parent, scenarios=(("some-defect", "what it shows"),)) as it:
        await it.shows("recent sessions")
        screen = it.app.screen
        wanted = next(n for n, row in enumerate(screen.rows) if row.session and row.session.path == failed)
        screen.query_one("#start-list", LongList).cursor = wanted
        await it.shows("host failed")
        assert "root cause" in it.text
        assert "some-defect" in it.text


async def test_a_loader_call_leads_to_its_parameter_and_back(complete):
    async with opened_at(complete) as it:
        await it.opened()
        await it.press("backslash", *"parameter", "space", "tilde", "space")
        await it.press(*"in_proj_qkvz", "enter")
        await it.until(lambda: "■" in it.text, "filtered timeline")
        row = next(n for n, one in enumerate(it.session.view.rows) if one.kind == "loader.called")
        it.session.select(row)
        await it.shows("weight.load")
        assert "source rows 0 –" in it.text
        await it.press("enter")
        await it.shows("parameter · 4 ranks")
        assert "rank 3 ─" in it.text
        await it.press("greater_than_sign")
        await it.shows("parameter · rank 0")
        await it.press("enter")
        await it.shows("who wrote")
        assert "model-0000" in it.text
        await it.press("q", "q")
        await it.until(lambda: it.session.desk.look == "timeline", "back on the timeline")


async def test_a_search_finds_goes_round_and_says_when_nothing_holds_the_text(complete):
    async with opened_at(complete) as it:
        await it.opened()
        await it.press("d", "slash", *"shared", "enter")
        first = it.session.query_one("#list", LongList).cursor
        await it.press("asterisk")
        assert it.session.query_one("#list", LongList).cursor > first
        await it.press("slash", *"zzz", "enter")
        await it.shows("0 of")


async def test_a_filter_that_hides_everything_says_so_and_escape_clears_it(complete):
    async with opened_at(complete) as it:
        await it.opened()
        await it.press("backslash", *"exception", "enter")
        await it.shows("0 of")
        assert "exception" in it.text
        await it.press("escape")
        await it.shows("process")


async def test_a_filter_that_cannot_be_read_names_the_place(complete):
    async with opened_at(complete) as it:
        await it.opened()
        await it.press("backslash", *"paramter", "enter")
        await it.shows("unknown word 'paramter'")


async def test_only_trouble_leaves_the_contradictions(failed):
    async with opened_at(failed) as it:
        await it.opened()
        await it.press("d", "x")
        await it.until(lambda: len(it.session.view.rows) == 2, "two contradictions")
        assert "embed_tokens" not in it.text


async def test_the_ignore_list_shows_every_entry_with_its_matches(failed):
    async with opened_at(failed) as it:
        await it.opened()
        await it.press("d", "i")
        await it.shows("ignore list")
        assert it.text.count(" matches ") >= 18


async def test_everything_recorded_about_an_event_is_one_key_away(complete):
    async with opened_at(complete) as it:
        await it.opened()
        await it.press("i")
        await it.shows("everything recorded about #1")
        for name in ("kind", "t_ns", "pid", "argv", "python"):
            assert name in it.text


async def test_layers_fold_and_unfold(complete):
    async with opened_at(complete) as it:
        await it.opened()
        row = next(n for n, one in enumerate(it.session.view.rows) if one.kind == "layer")
        before = len(it.session.view.rows)
        it.session.select(row)
        await it.press("z")
        await it.until(lambda: len(it.session.view.rows) < before, "folded")
        await it.press("right")
        await it.until(lambda: len(it.session.view.rows) == before, "unfolded")


async def test_the_help_page_has_every_action_and_the_palette_does_one(complete):
    from workbench.tui.keymap import KEYS

    async with opened_at(complete, (120, 100)) as it:
        await it.opened()
        await it.press("question_mark")
        await it.shows("breakpoints and filters")
        missing = [one.id for one in KEYS if one.help not in it.text and not one.id.startswith("evidence")]
        assert missing == []
        await it.press("q", "colon", *"decisions", "enter")
        await it.until(lambda: it.session.desk.look == "decisions", "palette opened the decisions")


async def test_the_order_of_kernels_changes_and_the_slowest_comes_first(complete):
    async with opened_at(complete) as it:
        await it.opened()
        await it.press("K", "o")
        await it.shows("slowest first")
        times = [row.total_ns for row in it.session.view.rows]
        assert times == sorted(times, reverse=True)


async def test_copy_takes_the_detail_as_text(failed):
    async with opened_at(failed) as it:
        await it.opened()
        await it.press("y")
        assert "skip-decision/fused-name" in it.app.clipboard


async def test_light_and_dark_are_one_key_apart(complete):
    async with opened_at(complete) as it:
        await it.opened()
        before = it.app.palette.name
        await it.press("ctrl+t")
        assert it.app.palette.name != before
        assert it.app.theme == it.app.palette.name


async def test_a_terminal_that_is_too_small_says_what_it_needs_and_the_session_goes_on(complete):
    async with opened_at(complete, (70, 18)) as it:
        await it.shows("needs 80×20, has 70×18")
        await it.pilot.resize_terminal(120, 36)
        await it.shows("seq  rank  event")


async def test_findings_lead_from_one_to_the_next_on_any_screen(failed):
    async with opened_at(failed) as it:
        await it.opened()
        await it.press("d", "right_square_bracket")
        await it.until(lambda: it.session.desk.look == "findings", "findings")
        first = it.session.desk.rows["findings"]
        await it.press("right_square_bracket")
        assert it.session.desk.rows["findings"] != first


async def test_without_colour_the_states_stay_readable(failed, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    async with opened_at(failed, is_ascii=True) as it:
        await it.opened()
        await it.shows("skip-decision/fused-name")
        assert it.app.palette.name == "loadscope-grey"
        assert it.text.isascii()
        assert "X F1" in it.text
