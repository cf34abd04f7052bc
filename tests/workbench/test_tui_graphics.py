"""Graphics as text, painting, cutting and wording, without an app."""

import pytest
from rich.text import Text

from workbench.tui import marks, plots, wording
from workbench.tui.paint import cut, ends, padded, paint, printable, wrapped
from workbench.tui.palette import ASCII, palette


def roles(text: Text) -> list[tuple[str, str]]:
    return [(text.plain[s.start : s.end], str(s.style)) for s in text.spans]


def test_a_sparkline_keeps_a_single_event_visible_beside_many():
    assert marks.spark([0, 1, 1000, 500]).plain == " ▁█▄"


def test_a_coverage_line_shows_once_twice_never_unknown_and_not_yet():
    text = marks.coverage("1120?.!")
    assert text.plain == "━━═╌┄ ━"
    assert ("╌", "e") in roles(text)


def test_a_folded_coverage_line_shows_the_worst_of_each_column():
    assert marks.worst(["1111", "1011", "1121"]) == "1021"


def test_the_worst_rank_of_a_group_wins_when_there_are_more_than_eight():
    assert marks.lanes("dddd").plain == "••••"
    assert marks.lanes("d" * 15 + "x").plain == "•••••••✗"
    assert marks.lanes("dhw-x").plain == "•◉○·✗"


def test_a_meter_passes_its_stop_in_the_colour_of_an_error():
    text = marks.meter(0.9, 10, limit=0.5)
    assert text.plain == "━━━━━┃━━━─"
    assert ("━", "e") in roles(text)
    assert ("┃", "t") in roles(text)


def test_a_meter_below_its_stop_has_nothing_red():
    assert "e" not in {role for _, role in roles(marks.meter(0.2, 10, limit=0.5))}


def test_a_ruler_shows_a_stretch_too_short_for_a_cell_as_one_cell():
    assert marks.ruler(10, [marks.Taken(0.50, 0.501)]).plain == "─────█────"
    assert marks.ruler(8, [marks.Taken(0.25, 0.5), marks.Taken(0.75, 1.0)]).plain == "──██──██"


def test_a_braille_area_of_a_full_value_fills_every_dot():
    assert [row.plain for row in plots.braille([1.0], 3, 2, plots.Scale(0, 1), is_filled=True)] == ["⣿⣿⣿", "⣿⣿⣿"]


def test_a_braille_line_rises_from_the_lower_left_to_the_upper_right():
    assert [row.plain for row in plots.braille([0, 1, 2, 3], 2, 1, plots.Scale(0, 3))] == ["⣠⠞"]


def test_heat_keeps_its_level_without_colour():
    assert plots.heat([0, 3, None, 6]).plain == " ▒ █"
    assert [str(s.style) for s in plots.heat([5]).spans] == ["h5/h5"]


def test_half_blocks_put_two_rows_in_one_line():
    assert [row.plain for row in plots.half_blocks([[1, 2], [3, 4], [5, 6]])] == ["▀▀", "▀▀"]


def test_an_icicle_cuts_its_labels_to_their_boxes():
    box = plots.Box
    rows = plots.icicle([[box(0, 0.5, "load"), box(0.5, 1, "process-everything")]], 20)
    assert [row.plain for row in rows] == [" load      process- "]


def test_a_value_in_a_template_is_never_markup():
    text = paint("{m|name} {e|$}", "{a|x} [red]$[/red]")
    assert text.plain == "name {a|x} [red]$[/red]"
    assert roles(text)[-1] == ("{a|x} [red]$[/red]", "e")


def test_a_template_with_the_wrong_number_of_values_is_an_error():
    with pytest.raises(ValueError, match="more values"):
        paint("nothing", 1)
    with pytest.raises(ValueError, match="fewer values"):
        paint("{m|$} $", 1)


@pytest.mark.parametrize(
    ("raw", "shown"),
    [("\x1b[31mx", "\\x1b[31mx"), ("a\nb", "a\\nb"), ("\u202eabc", "\\u202eabc"), ("größe.ш", "größe.ш")],
)
def test_control_and_direction_characters_are_shown_escaped(raw, shown):
    assert printable(raw) == shown


def test_a_dotted_name_keeps_its_end_when_it_is_cut():
    assert cut(Text("■ layers.1.mlp.experts.down_proj.weight"), 20, keeps_end=True).plain == "■ ….down_proj.weight"
    assert cut(Text("    ■ w13_weight"), 14, keeps_end=True, shrinks=4).plain == "  ■ w13_weight"
    assert cut(Text("abcdef"), 4).plain == "abc…"
    assert cut(Text("abc"), 4).plain == "abc"


def test_the_left_end_of_a_line_gives_way_to_the_right_one():
    assert ends(Text("a long left end"), Text("#131"), 12).plain == "a lon…  #131"
    assert padded(Text("7"), 3, is_right=True).plain == "  7"


def test_wrapping_breaks_a_word_that_is_longer_than_the_line():
    assert [one.plain for one in wrapped("ab " + "x" * 20, 8)] == ["ab", "xxxxxxxx", "xxxxxxxx", "xxxx"]
    assert [one.plain for one in wrapped("one two three", 9)] == ["one two", "three"]


def test_numbers_and_types_read_the_same_on_every_screen():
    assert wording.dtype("torch.float8_e4m3fn") == wording.dtype("F8_E4M3") == "e4m3"
    assert wording.size(768) == "768 B"
    assert wording.size(3072) == "3.1 kB"
    assert wording.milliseconds(210_000) == "0.21"
    assert wording.milliseconds(None) == "…"
    assert wording.duration(41_000_000) == "41 ms"
    assert wording.age(150) == "2 min"
    assert wording.value(0.00118) == ".00118"
    assert wording.some(1, "tensor") == "1 tensor"


@pytest.mark.parametrize("name", ["dark", "light", "grey"])
def test_every_palette_has_a_style_for_every_role_that_is_painted_with(name):
    chosen = palette(name)
    used = {role for _, role in [*marks.COVERAGE.values(), *marks.LANES.values()]} | set("tmfgdaewbAEWkuTPX")
    assert used <= set(chosen.styles)
    assert chosen.style("h1/h4") is not None


def test_ascii_replaces_every_glyph_by_exactly_one_cell():
    chosen = palette("dark", is_ascii=True)
    line = Text("▌✗ ■ ÷ ↓ → ◇ + ↻ » ▤ ▷ ✓ ▲ • ◉ ○ ‖ ▾ ▸ ┃ ━ ═ ╌ ┄ ▁▂▃▄▅▆▇█ ⠁⣿ … × – · µ ◆")
    shown = chosen.resolved(line).plain
    assert shown.isascii()
    assert len(shown) == len(line.plain)
    assert all(len(chr(v) if isinstance(v, int) else v) == 1 for v in ASCII.values())
