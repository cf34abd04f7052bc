"""A host can be held at its loader calls, looked into and let go; without a client it never waits."""

from __future__ import annotations

import json
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from inspectors.probe.conditions import ConditionError, parse
from inspectors.probe.events import LoaderCalled, SkipDecided, StageFailed
from sessions.control import Control, ControlError

LOAD = """
from toyengine.models.toy import Model
from toyengine.reading import iterate, open_checkpoint
model = Model(); model.load_weights(iterate(open_checkpoint("x"))); print(model.values())
"""
RESULT = "{'a.weight': [1, 2], 'b.weight': [3, 4], 'c.weight': [5]}\n"


@contextmanager
def held_host(toy, code: str = LOAD, **manifest) -> Iterator[tuple[Control, object]]:
    toy.write_manifest(is_paused_at_start=True, **manifest)
    host = toy.start(code)
    try:
        control, deadline = None, time.monotonic() + 30
        while control is None and time.monotonic() < deadline and host.poll() is None:
            control = Control.connect(toy.session)
            time.sleep(0.01)
        assert control is not None, host.stderr.read()
        yield control, host
    finally:
        host.kill()
        host.communicate()


def at(toy, state) -> tuple[str, str]:
    """Kind and name of the event at which the host is held, read from its stream."""
    event = {e.seq: e for e in toy.events()}[state["seq"]]
    return event.kind, event.body.get("parameter") or event.body.get("module") or event.body.get("path", "")


def test_a_host_is_held_at_its_first_event_until_it_is_let_go(toy):
    with held_host(toy) as (control, host):
        state = control.wait(30)
        assert (state["state"], state["why"]) == ("paused", "start")
        assert at(toy, state)[0] == "skip.decided"
        control.release()
        assert host.communicate(timeout=30)[0] == RESULT


def test_next_goes_from_loader_call_to_loader_call(toy):
    with held_host(toy) as (control, host):
        control.wait(30)
        seen = []
        for _ in range(3):
            control.run("next")
            seen.append(at(toy, control.wait(30)))
        assert seen == [("loader.called", name) for name in ("a.weight", "b.weight", "c.weight")]
        control.run("next")
        assert host.communicate(timeout=30)[0] == RESULT


def test_any_stops_at_every_event_and_out_at_the_end_of_the_enclosing_span(toy):
    with held_host(toy) as (control, _):
        control.wait(30)
        kinds = []
        while "parameter.registered" not in kinds:
            control.run("any")
            kinds.append(at(toy, control.wait(30))[0])
        assert kinds == [
            "method.selected", "weights.created", "checkpoint.opened", "weights.mapped", "parameter.registered",
        ]  # fmt: skip
        control.run("out")
        state = control.wait(30)
        assert at(toy, state)[0] == "weights.mapped"
        assert {e.seq: e for e in toy.events()}[state["seq"]].dur_ns is not None


def test_a_breakpoint_holds_the_call_about_to_return_with_its_tensors(toy):
    with held_host(toy) as (control, _):
        control.wait(30)
        control.breakpoints(['parameter ~ "b.*" and shard_id is none', "exception"])
        control.run("breakpoint")
        state = control.wait(30)
        assert at(toy, state) == ("loader.called", "b.weight")
        assert (state["why"], state["breakpoint"]) == ("breakpoint 1", 'parameter ~ "b.*" and shard_id is none')
        assert control.inspect("source")["name"] == "b.weight"
        assert control.inspect("parameter")["dtype"] == "ReadOnlyParameter"


def test_an_exception_is_a_place_to_hold(toy):
    code = LOAD.replace("Model()", "Model((3, 2))")
    with held_host(toy, code) as (control, host):
        control.wait(30)
        control.breakpoints(["exception"])
        control.run("breakpoint")
        assert at(toy, control.wait(30))[0] == "stage.failed"
        control.release()
        assert "ValueError: a: 2 values for 3" in host.communicate(timeout=30)[1]


def test_a_client_that_goes_lets_the_host_go(toy):
    with held_host(toy) as (control, host):
        assert control.wait(30)["state"] == "paused"
        control.close()
        assert host.communicate(timeout=30)[0] == RESULT


def test_the_end_of_the_host_is_told_and_its_socket_removed(toy):
    with held_host(toy) as (control, host):
        note = json.loads(next((toy.session / "control").glob("*.json")).read_text())
        control.wait(30)
        control.release()
        assert host.communicate(timeout=30)[0] == RESULT
        assert list((toy.session / "control").iterdir()) == []
        assert not Path(note["address"]).parent.exists()
        with pytest.raises(ControlError) as gone:
            control.state()
        assert gone.value.is_gone
        assert Control.connect(toy.session) is None


def test_only_the_owner_with_the_token_is_let_in(toy):
    with held_host(toy) as (control, _):
        note = next((toy.session / "control").glob("*.json"))
        said = json.loads(note.read_text())
        assert stat.S_IMODE(note.stat().st_mode) == stat.S_IMODE(Path(said["address"]).stat().st_mode) == 0o600
        assert stat.S_IMODE(Path(said["address"]).parent.stat().st_mode) == 0o700
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.settimeout(10)
            stranger.connect(said["address"])
            stranger.sendall(b'{"token": "guess"}\n')
            assert json.loads(stranger.makefile().readline()) == {"ok": False, "error": "wrong token"}
        assert control.wait(30)["state"] == "paused"


def test_a_session_in_a_deep_folder_can_be_controlled(toy):
    deep = toy.session / ("long" * 40)
    deep.mkdir()
    toy.write_manifest()
    (deep / "session.json").write_text((toy.session / "session.json").read_text())
    toy.folder, plain = deep, toy.folder
    (plain / "session").rename(plain / "kept")
    deep = plain / "kept" / ("long" * 40)
    (deep / "session").symlink_to(deep)
    toy.folder = deep
    for name in ("toyengine", "toyadapter.py"):
        (deep / name).symlink_to(plain / name)
    with held_host(toy) as (control, _):
        assert control.wait(30)["state"] == "paused"


def test_wrong_requests_are_answered_and_the_connection_goes_on(toy):
    with held_host(toy) as (control, _):
        control.wait(30)
        for wrong, named in (("breakpoints", "expected"), ("run", "known are next")):
            with pytest.raises(ControlError, match=named):
                control.breakpoints(["parameter ~"]) if wrong == "breakpoints" else control.run("tomorrow")
        with pytest.raises(ControlError, match="no tensor is at hand"):
            control.inspect()
        assert control.state()["state"] == "paused"


def test_a_host_without_a_client_runs_through(toy, load_code):
    toy.write_manifest(breakpoints=[])
    assert toy.run(load_code).code == 0


CALL = LoaderCalled(parameter="model.layers.0.in_proj_ba.weight", shard_id="(0, 1)", tensor_bytes=96)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ('parameter ~ "*in_proj_ba*"', True),
        ('parameter ~ "*in_proj_ba*" and shard_id is tuple', True),
        ("shard_id is none", False),
        ("rank = 1", True),
        ("rank != 1 or kind = loader.called", True),
        ("not (rank = 1)", False),
        ("tensor_bytes > 95 and tensor_bytes <= 96", True),
        ("no_such_field = 3", False),
        ("exception", False),
        ("decision or exception", False),
    ],
)
def test_conditions_are_read_as_written(text, holds):
    assert parse(text).holds(CALL, 1) is holds


def test_words_name_their_kinds():
    assert parse("exception").holds(StageFailed(), -1)
    assert parse("decision").holds(SkipDecided(), -1)
    assert parse("tried ~ '*_a'").holds(SkipDecided(tried=("x.in_b", "x.in_a")), -1)


UNREADABLE = ["", "parameter", "parameter ~", 'parameter ~ "open', "(rank = 1", "rank = 1 rank", "x is big"]


@pytest.mark.parametrize("text", UNREADABLE)
def test_a_condition_that_cannot_be_read_is_an_error_that_quotes_it(text):
    with pytest.raises(ConditionError):
        parse(text)
