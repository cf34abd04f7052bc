"""The memory and time screen: the same numbers as the verb, by stage, file, parameter, layer, module and kernel."""

from pathlib import Path

import pytest
from tui_driver import opened_at

from sessions.session import Session
from workbench.profile.flame import Block
from workbench.profile.profile import Profile
from workbench.tui.costplots import memory_plot, time_plot, zoomed
from workbench.tui.snapshot import Folding


@pytest.fixture(scope="module")
def session(demo):
    opened = Session.open(Path(demo.json["session"]))
    yield opened
    opened.close()


async def test_every_table_and_the_blocks_of_a_stage_are_a_key_away(demo):
    async with opened_at(Path(demo.json["session"]), (200, 60)) as it:
        await it.opened()
        await it.press("m")
        await it.shows("weight.load")
        assert "host memory, MB" in it.text
        assert "peak" in it.text
        for told in ("0005-of-00005", "w13_weight", "(outside the layers)", "in_proj_qkvz", "fp8_block_linear"):
            await it.press("v")
            await it.shows(told)
        await it.press("v", "g", "j", "j", "enter")
        await it.shows("load_weights itself")
        await it.press("escape", "G", "o")
        await it.shows("slowest first")
        assert "internal error" not in it.text


async def test_one_rank_is_shown_with_its_waiting(demo):
    async with opened_at(Path(demo.json["session"]), (120, 36)) as it:
        await it.opened()
        await it.press("m", "greater_than_sign")
        await it.shows(" waiting ")


async def test_a_load_without_a_forward_pass_says_why_there_are_no_kernels(failed_demo):
    async with opened_at(Path(failed_demo.json["session"]), (120, 36)) as it:
        await it.opened()
        await it.press("m", "v", "v", "v")
        await it.shows("There was no forward pass")


def test_a_large_session_adds_up_its_costs_after_everything_else(session, monkeypatch):
    monkeypatch.setattr("workbench.tui.snapshot.LARGE", 10)
    folding = Folding(session)
    first = folding.fold(None)
    assert (first.costs, folding.is_done) == (None, False)
    assert first.parameters
    second = folding.fold(None)
    assert second.costs is not None
    assert folding.is_done
    assert folding.fold(3).costs is second.costs  # another `now` costs nothing


def test_the_memory_plot_lights_the_stretch_of_the_peak(session):
    found = Profile(session).memory[0]
    lines = memory_plot(found, 60, 4)
    assert [line.cell_len for line in lines] == [60] * 4
    assert all(any(span.style == "w" for span in line.spans) for line in lines)
    assert lines[0].plain.split()[0] == f"{found.peak_bytes / 1e6:,.0f}"


def test_blocks_lie_below_what_holds_them():
    whole = Block(
        "all", inner={"load": Block("load", 10.0, inner={"a": Block("a", 30.0)}), "forward": Block("forward", 60.0)}
    )
    first, second = (line.plain for line in time_plot(whole, 50, 2))
    assert first.index("load") == 1
    assert first.index("forward") == 21
    assert second.index("a") == 1
    assert [line.plain.split()[-1] for line in zoomed(whole, 50)[-3:]] == ["forward", "load", "a"]
