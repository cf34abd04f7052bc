"""The parameters screen on planted defects: elements at fault, both calls, slots, and the way to bytes."""

from pathlib import Path

import pytest
from tui_driver import opened_at

GOLDEN = Path(__file__).resolve().parents[2] / "sessions" / "golden"


SHOWN = {
    "left-twice": (
        "never  [64:128, :]",
        "nobody used up_proj.weight",
        "twice  [0:64, :]",
        "no call",
        "at fault · each rank",
    ),
    "unwritten-slot": ("never  [32:48, :]", "nobody used k_proj.weight", "slots", "k ╌╌╌  [32:48, :] no call"),
    "double-write": ("twice  [:, :]", "1 #", "2 #", "o_proj.weight"),
    "swapped-halves": ("elsewhere  [64:128, :]", "the place of slot 1", "gate_proj.weight as 0"),
    "rank-offset": ("at fault · rank 0", "elsewhere  [64:128, :]", "expected rows 0–63, rank 0's part"),
    "dropped-scale": ("never  [:, :]", "nobody used down_proj.weight_scale"),
}


@pytest.mark.parametrize("name", SHOWN)
async def test_the_detail_of_a_parameter_shows_the_elements_at_fault_with_their_calls_and_slots(name):
    async with opened_at(GOLDEN / name, (120, 40)) as it:
        await it.opened()
        await it.press("p", "x", *(["j"] if name == "dropped-scale" else []))  # its weight is beside it, and whole
        for text in SHOWN[name]:
            await it.shows(text)


async def test_numbers_lead_to_the_calls_of_a_double_write_and_back():
    async with opened_at(GOLDEN / "double-write") as it:
        await it.opened()
        await it.press("p", "x")
        await it.shows("twice  [:, :]")
        (first,) = [line for line in it.text.splitlines() if "  1 #" in line]
        call = first.split("  1 ")[1].split()[0]
        await it.press("1")
        await it.shows("weight.load")
        assert it.session.desk.look == "timeline"
        assert it.session.view.position(it.session.selected()[1]) == int(call.removeprefix("#").replace(",", "")) - 1
        await it.press("escape")
        await it.shows("twice  [:, :]")
        await it.press("9")
        await it.shows("no call at fault 9")


async def test_an_element_is_asked_for_and_shown_down_to_its_bytes():
    async with opened_at(GOLDEN / "left-twice") as it:
        await it.opened()
        await it.press("p", "x")
        await it.shows("twice")
        await it.press("a", "enter")
        await it.shows("write 2 of 2")
        assert "model.layers.1.mlp.gate_proj.weight[0, 0]" in it.text
        assert "is not where it was loaded from" in it.text
        await it.press("escape")
        await it.shows("where did it go")


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("model-00001-of-00001.safetensors:84008-84010", "nobody used these bytes"),
        ("model.norm.weight[64]", "64 is out of range in dimension 0"),
        ("model.norm.weigth[0]", "did you mean model.norm.weight?"),
    ],
)
async def test_bytes_and_mistakes_are_answered_too(typed, shown):
    async with opened_at(GOLDEN / "left-twice", (160, 36)) as it:
        await it.opened()
        await it.press("p", "a", "ctrl+u")
        await it.press(*({":": "colon", "[": "left_square_bracket", "]": "right_square_bracket", ".": "full_stop",
                          "-": "minus"}.get(one, one) for one in typed))  # fmt: skip
        await it.press("enter")
        await it.shows(shown)


async def test_what_is_not_written_yet_is_no_gap_while_now_is_inside_the_load():
    async with opened_at(GOLDEN / "left-twice") as it:
        await it.opened()
        await it.press("p", "x")
        await it.shows("never  [64:128, :]")
        await it.press("N", "N", "N")
        await it.until(lambda: "never  [" not in it.text, "no gap before the end")
