"""Views of a session: parameters, consumption, decisions, summary and spine."""

from collections import Counter

import pytest

from sessions.checkpoint import consumption, header
from sessions.decisions import decisions
from sessions.parameters import parameters
from sessions.spine import density, fraction_of, position_at, stages
from sessions.summary import summary

OUT = "model.layers.0.linear_attn.out_proj.weight"


def named(session, name, until=None):
    return next(v for v in parameters(session, until) if v.name == name and v.rank == 1)


def test_a_clean_load_fills_every_parameter_once(loaded):
    views = parameters(loaded)
    assert len(views) == loaded.count("parameter.registered")
    assert {(v.coverage.never_written, v.coverage.written_twice, v.coverage.is_final) for v in views} == {(0, 0, True)}
    assert {v.cells(14) for v in views} == {"1" * 14}
    assert all(loaded.event(v.writes[0].position).body.parameter == v.name for v in views)


def test_time_travel_shows_a_parameter_as_it_was(loaded):
    write = named(loaded, OUT).writes[0]
    before, during, after = (named(loaded, OUT, p) for p in (write.position - 1, write.at - 1, write.at))
    assert (before.calls, before.cells(4)) == ((), "....")
    assert (during.calls, during.writes) == ((write.position,), ())
    assert (after.cells(4), after.coverage.is_final) == ("1111", False)


def test_without_a_ledger_coverage_is_unknown_not_invented(recordings, tmp_path, opened):
    session = opened(recordings.write_session(tmp_path, recordings.Plan(level="calls")))
    view = named(session, OUT)
    assert (view.coverage.never_written, view.coverage.is_known, view.cells(3)) == (None, False, "???")
    assert named(session, OUT, view.position).cells(3) == "..."
    assert summary(session).coverage is None
    assert {c.consumed_bytes for c in consumption(session) if c.calls} == {None}


def test_a_parameter_that_was_left_out_is_red_from_end_to_end(recordings, tmp_path, opened):
    session = opened(recordings.write_session(tmp_path, recordings.Plan(leaves_out=OUT)))
    view = named(session, OUT)
    assert (view.coverage.never_written, view.cells(3)) == (view.elements, "000")
    left = next(c for c in consumption(session) if c.name == OUT)
    assert (left.is_read, left.calls, left.never_consumed_bytes) == (False, 0, left.size_bytes)


def test_consumption_over_all_ranks_counts_each_byte_once(loaded, recordings):
    listed = {name: shape for name, _, shape in recordings.tensors(recordings.Plan())}
    assert list(header(loaded)) == list(listed)
    for one in consumption(loaded):
        expected = 0 if one.name.startswith("mtp.") else one.size_bytes
        assert (one.consumed_bytes, one.calls) == (expected, 4 if expected else 0)


def test_decisions_join_the_list_the_header_and_what_was_built(loaded):
    views = {v.module: v for v in decisions(loaded) if v.rank == 0}
    skipped = views["model.layers.0.linear_attn.in_proj_ba"]
    quantized = views["model.layers.0.linear_attn.out_proj"]
    assert (skipped.built, skipped.matched, skipped.header_dtype) == ("as is", skipped.module, "bfloat16")
    assert (quantized.built, quantized.matched_entry, quantized.header_dtype) == ("float8_e4m3fn", -1, "float8_e4m3fn")
    assert quantized.header[0].companions == ("weight_scale_inv",)
    assert not any(v.is_contradiction or v.hidden_entry >= 0 for v in views.values())


def test_a_hidden_list_entry_shows_as_a_contradiction(recordings, tmp_path, opened):
    session = opened(recordings.write_session(tmp_path, recordings.Plan(uses_wrong_fallback=True)))
    view = next(v for v in decisions(session) if v.module.endswith("in_proj_ba"))
    assert (view.is_contradiction, view.built, view.header_dtype) == (True, "float8_e4m3fn", "bfloat16")
    assert (view.ignored[view.hidden_entry], view.expansion_source) == (view.module, "fallback")


def test_the_summary_counts_what_the_pages_hold(loaded, recordings):
    kinds = Counter(e.kind for e in loaded.page(0, len(loaded)))
    told = summary(loaded)
    assert told.counts.weight_loader_calls == kinds["loader.called"]
    assert told.counts.shard_splits == kinds["shard.split"]
    assert told.counts.skip_decisions == kinds["skip.decided"]
    assert told.counts.kernel_launches == kinds["kernel.launched"]
    assert told.counts.checkpoint_tensors == len(list(recordings.tensors(recordings.Plan())))
    local = sum(shape[0] * shape[1] for name, _, shape in recordings.tensors(recordings.Plan()) if "mtp" not in name)
    assert told.coverage.elements == local
    assert (told.coverage.never_written, told.coverage.written_twice) == (0, 0)
    assert told.coverage.never_consumed_bytes == 256 * 256 * 2
    assert told.state == "ok"


def test_stages_stand_on_the_spine_in_their_order(loaded):
    found = stages(loaded)
    assert [name for _, name in found] == ["open", "create", "load", "process", "forward"]
    assert all(0 <= fraction <= 1 for fraction, _ in found)


@pytest.mark.parametrize("width", [0, 1, 80])
def test_the_spine_has_as_many_cells_as_asked_for(loaded, width):
    cells = density(loaded, width)
    assert len(cells) == width
    assert not cells or max(cells) == 1.0
    assert all(0 <= cell <= 1 for cell in cells)


def test_the_spine_leads_to_an_event_and_back(loaded):
    for event in loaded.of_kinds("loader.called", "forward.ran"):
        there = position_at(loaded, fraction_of(loaded, event.position))
        assert abs(loaded.event(there).t_ns - event.t_ns) <= 1000
