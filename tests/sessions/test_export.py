"""Exports: every event once, in formats that other programs read."""

import io
import json
from collections import Counter

from inspectors.probe.events import LoaderCalled, ValueSummarized
from inspectors.probe.recorder import Recorder
from sessions.export import jsonl, perfetto


def test_json_lines_hold_the_manifest_and_every_event(loaded, tmp_path):
    path = tmp_path / "out.jsonl"
    assert jsonl.export(loaded, path) == len(loaded)
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert lines[0]["manifest"]["name"] == "tiny"
    assert [line["ref"] for line in lines[1:]] == [e.ref for e in loaded.page(0, len(loaded))]
    call = next(line for line in lines if line.get("kind") == "loader.called")
    event = loaded.find(call["ref"])
    assert call["body"]["parameter"] == event.body.parameter
    assert tuple(call["body"]["tensor_shape"]) == event.body.tensor_shape


def test_a_trace_has_a_track_for_each_rank_and_spans_in_microseconds(loaded):
    out = io.StringIO()
    perfetto.export(loaded, out)
    events = json.loads(out.getvalue())["traceEvents"]
    names = {e["tid"]: e["args"]["name"] for e in events if e["ph"] == "M" and e["name"] == "thread_name"}
    assert [names[rank] for rank in range(4)] == ["rank 0", "rank 1", "rank 2", "rank 3"]
    told = [e for e in events if e["ph"] in "iX"]
    recorded = loaded.page(0, len(loaded))
    assert Counter(e["ph"] for e in told) == Counter("i" if e.dur_ns == 0 else "X" for e in recorded)
    assert min(e["ts"] for e in told) == 0
    for trace, event in zip(told, recorded, strict=True):
        assert round(trace.get("dur", 0) * 1000) == event.dur_ns


def test_what_strict_json_cannot_hold_is_written_as_text(tmp_path, opened):
    recorder = Recorder(tmp_path)
    recorder.point(ValueSummarized(parameter="p", absmax=float("inf"), mean=float("nan")))
    recorder.begin(LoaderCalled(checkpoint_name="never ends"))
    recorder.close()
    session = opened(tmp_path)
    for write in (jsonl.export, perfetto.export):
        out = io.StringIO()
        write(session, out)
        assert "Infinity" not in out.getvalue()
        assert "NaN" not in out.getvalue()
    facts = json.loads(out.getvalue())["traceEvents"][-1]["args"]
    assert facts["open"] is True
