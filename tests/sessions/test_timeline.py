"""The timeline: folding over ranks, nesting, labels, filters, and building while a session grows."""

import dataclasses
from collections import Counter

import pytest

from inspectors.probe.events import LoaderCalled, SkipDecided
from inspectors.probe.recorder import Recorder
from sessions.filters import parse
from sessions.manifest import Manifest
from sessions.timeline import Timeline

RANKS = 4


@pytest.fixture
def timeline(loaded):
    made = Timeline(loaded)
    assert made.build()
    return made


def every(timeline, rank=None):
    return timeline.page(0, len(timeline), rank)


def test_every_event_is_shown_in_one_row_or_in_its_calls_row(loaded, timeline):
    for event in loaded.page(0, len(loaded)):
        row = timeline.row_of(event.position)
        assert 0 <= row < len(timeline)
        if event.kind == "weight.written":
            assert row == timeline.row_of(loaded.position(event.stream, event.parent))


def test_a_call_made_alike_by_all_ranks_is_one_row(loaded, timeline):
    calls = [row for row in every(timeline) if row.kind == "loader.called"]
    assert len(calls) * RANKS == loaded.count("loader.called")
    for row in calls:
        events = loaded.events([lane.position for lane in row.lanes])
        assert [e.rank for e in sorted(events, key=lambda e: e.rank)] == list(range(RANKS))
        assert len({e.body.checkpoint_name for e in events}) == 1


def test_ranks_that_build_one_after_the_other_still_share_their_rows(loaded, timeline):
    rows = Counter(row.kind for row in every(timeline))
    for kind in ("skip.decided", "method.selected", "weights.created", "weights.processed", "kernel.launched"):
        assert rows[kind] * RANKS == loaded.count(kind)


def test_ranks_that_no_manifest_announced_are_folded_as_they_appear(tmp_path, opened):
    recorder = Recorder(tmp_path)
    for rank in (0, 1, 2):
        for n in range(3):
            recorder.point(LoaderCalled(parameter=f"p{n}"), rank=rank)
    recorder.close()
    timeline = Timeline(opened(tmp_path))
    timeline.build()
    calls = [row for row in every(timeline) if row.kind == "loader.called"]
    assert [[lane.position for lane in row.lanes] for row in calls] == [[n + 1, n + 4, n + 7] for n in range(3)]


def test_the_row_shows_the_rank_that_is_asked_for(timeline):
    cuts = [[row.label for row in every(timeline, rank) if row.kind == "shard.split"] for rank in (0, 1)]
    assert "rows 0–255 of 1,024" in cuts[0]
    assert "rows 256–511 of 1,024" in cuts[1]


def test_the_row_that_holds_the_moment_shows_its_rank_unless_another_is_asked_for(timeline):
    row = next(row for row in every(timeline) if row.kind == "loader.called")
    moment = row.lanes[2].position
    (shown,) = timeline.rows([row.number], now=moment)
    assert (shown.position, shown.rank) == (moment, 2)
    (asked,) = timeline.rows([row.number], rank=1, now=moment)
    assert asked.rank == 1


def test_calls_stand_under_their_layer_and_cuts_under_their_call(timeline):
    rows = {row.number: row for row in every(timeline)}
    for row in rows.values():
        assert row.depth == (rows[row.parent].depth + 1 if row.parent >= 0 else 0)
    cut = next(row for row in rows.values() if row.kind == "shard.split")
    call = rows[cut.parent]
    layer = rows[call.parent]
    assert (call.kind, layer.kind, layer.label) == ("loader.called", "layer", "layers.0")
    assert rows[layer.parent].kind == "weights.mapped"
    assert call.label == "linear_attn.in_proj_qkvz.weight"
    assert call.name == "model.layers.0.linear_attn.in_proj_qkvz.weight"


def test_neighbours_without_a_story_are_one_counted_row(loaded, timeline):
    rows = {row.kind: row for row in every(timeline)}
    assert rows["tensor.listed"].count == loaded.count("tensor.listed")
    assert rows["parameter.registered"].count * RANKS == loaded.count("parameter.registered")


def test_folding_hides_what_is_inside(timeline):
    layer = next(row for row in every(timeline) if row.kind == "layer")
    inside = {row.number for row in every(timeline) if row.parent == layer.number}
    shown = timeline.visible(frozenset({layer.number}))
    assert layer.number in shown
    assert inside
    assert not inside & set(shown)


def test_a_first_page_does_not_wait_for_the_rest(recordings, tmp_path, opened):
    session = opened(recordings.write_session(tmp_path, recordings.Plan(layers=150)))
    timeline = Timeline(session)
    page = timeline.page(0, 20)
    assert len(page) == 20
    assert not timeline.is_built
    partial = len(timeline)
    assert timeline.build()
    assert len(timeline) > partial
    again = timeline.page(0, 20)  # ranks that came later filled their lanes
    assert [(row.number, row.position, row.label) for row in again] == [(r.number, r.position, r.label) for r in page]


def test_a_failed_call_is_marked_on_the_rank_that_failed(recordings, tmp_path, opened):
    session = opened(recordings.write_session(tmp_path, recordings.Plan(uses_wrong_fallback=True)))
    timeline = Timeline(session)
    timeline.build()
    rows = every(timeline)
    failed = [row for row in rows if any(lane and lane.is_failed for lane in row.lanes)]
    assert [row.kind for row in failed] == ["weights.created", "stage.failed"]
    assert [lane is not None for lane in failed[0].lanes] == [True, False, False, False]
    assert failed[1].label.startswith("ValueError: Weight output_partition_size = 8")


def test_rows_of_a_live_session_are_only_added_and_open_spans_end(tmp_path, opened):
    Manifest(tp=2).write(tmp_path)
    recorder = Recorder(tmp_path)
    first = recorder.begin(LoaderCalled("disk", "model.layers.3.x.weight"), rank=0)
    recorder.flush()
    session = opened(tmp_path)
    timeline = Timeline(session)
    timeline.build()
    before = every(timeline)
    assert before[-1].dur_ns is None
    assert before[-1].lanes[0].is_open
    assert before[-1].lanes[1] is None
    recorder.end(first, dataclasses.replace(before[-1].body, outcome="raised"))
    recorder.end(recorder.begin(LoaderCalled("disk", "model.layers.3.x.weight"), rank=1))
    recorder.flush()
    session.refresh()
    assert timeline.refresh()
    timeline.build()
    after = every(timeline)
    assert [row.number for row in after] == [row.number for row in before]
    assert after[-1].dur_ns > 0
    assert [(lane.is_open, lane.is_failed) for lane in after[-1].lanes] == [(False, True), (False, False)]
    recorder.close()


def test_search_goes_both_ways_and_ends(timeline):
    query = parse('parameter ~ "*layers.1.*out_proj.weight" and kind = loader.called')
    first = timeline.search(query, -1)
    assert timeline.rows([first])[0].name == "model.layers.1.linear_attn.out_proj.weight"
    assert timeline.search(query, first) == -1
    assert timeline.search(query, len(timeline), backwards=True) == first
    assert timeline.search(query, first, backwards=True) == -1


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ('parameter ~ "*out_proj*"', lambda e: "out_proj" in getattr(e.body, "parameter", "")),
        ("kind = loader.called and rank = 1", lambda e: e.kind == "loader.called" and e.rank == 1),
        ("decision or kernel", lambda e: e.kind in {"skip.decided", "method.selected", "kernel.launched"}),
        ("not (kind = shard.split or rank < 2)", lambda e: e.kind != "shard.split" and e.rank >= 2),
        ("is_skipped = true", lambda e: isinstance(e.body, SkipDecided) and e.body.is_skipped),
        ('tensor ~ "*scale*"', lambda e: "scale" in getattr(e.body, "checkpoint_name", "")),
        ('kind !~ "loader"', lambda e: "loader" not in e.kind),
        ("dur_ms > 0", lambda e: e.dur_ns is not None and e.dur_ns > 0),
        ('"linearmethod"', lambda e: "LinearMethod" in str(e.body)),
    ],
)
def test_a_filter_finds_what_a_walk_over_all_events_finds(loaded, timeline, text, holds):
    query = parse(text)
    events = loaded.page(0, len(loaded))
    matching = [e.position for e in events if query.matches(e)]
    assert matching == [e.position for e in events if holds(e)]
    shown = {row.number: row for row in timeline.rows(timeline.visible(query=query))}
    kinds = {events[p].kind for p in matching}
    assert matching
    assert {row.kind for row in shown.values()} - {"layer"} <= kinds


@pytest.mark.parametrize(
    ("text", "matches"),
    [("'q'", "str"), ("(0, 1, 2)", "tuple"), ("3", "int"), ("", "none")],
)
def test_a_filter_asks_for_the_type_of_a_shard_id(text, matches, tmp_path, opened):
    recorder = Recorder(tmp_path)
    recorder.point(LoaderCalled(shard_id=text))
    recorder.close()
    event = opened(tmp_path).event(1)
    found = [kind for kind in ("tuple", "int", "none", "str") if parse(f"shard_id is {kind}").matches(event)]
    assert found == [matches]


@pytest.mark.parametrize(
    ("text", "place", "hint"),
    [
        ("", 0, "in_proj_ba"),
        ("paramter = 1", 0, "parameter"),
        ("rank = 1 and", 12, "in_proj_ba"),
        ("rank = 1 rank = 2", 9, "and, or"),
        ("(rank = 1", 0, "Add )"),
        ("rank 1", 5, "in_proj_ba"),
        ('parameter ~ "open', 12, "quotes"),
        ("shard_id is list", 12, "tuple"),
    ],
)
def test_a_filter_that_cannot_be_read_says_where_and_what_to_try(text, place, hint):
    from sessions.filters import FilterError

    with pytest.raises(FilterError) as error:
        parse(text)
    assert error.value.position == place
    assert hint in error.value.try_
