"""Stepping: keys run a paused host, on a recording they move `now`; breakpoints and the tensor at hand."""

import os
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from tui_driver import opened_at

from inspectors.probe.events import EngineFound, LoaderCalled, ParameterRegistered, ProcessStarted, TensorListed
from inspectors.probe.recorder import Recorder
from sessions.control import ControlError
from sessions.manifest import Manifest
from workbench import launching
from workbench.launching import Load, Watch, host_of_load
from workbench.preflight.check import check
from workbench.tui.controlling import Controlling

NAMES = [f"model.layers.{layer}.mlp.{leaf}.weight" for layer in range(3) for leaf in ("gate", "up_proj")]


class FakeHost:
    """A host that writes one loader call a step with the real recorder, and answers like a control channel."""

    def __init__(self, folder: Path) -> None:
        Manifest(name="fake", tp=1, engine="fake", is_paused_at_start=True).write(folder)
        self.pid = os.getpid()
        self.asked: list[object] = []
        self.recorder = Recorder(folder)
        self.recorder.point(ProcessStarted(pid=self.pid))
        self.recorder.point(EngineFound(engine="fake"))
        for name in NAMES:
            self.recorder.point(
                TensorListed(checkpoint_name=name, dtype="F32", shape=(4, 4), file="a", begin=0, end=64)
            )
            self.recorder.point(ParameterRegistered(parameter=name, dtype="float32", shape=(4, 4), size_bytes=64), 0)
        self.recorder.flush()
        self.left = list(NAMES)
        self.why, self.at, self.has_ended = "start", 1, False
        self.changed = threading.Event()

    def state(self):
        name = "ended" if self.has_ended else "paused"
        return {"state": name, "seq": self.at, "why": self.why, "breakpoint": None}

    def wait(self, seconds):
        return self.state()

    def run(self, until):
        self.asked.append(until)
        if not self.left:
            self.has_ended = True
            return
        name = self.left.pop(0)
        seq = self.recorder.begin(LoaderCalled(checkpoint_name=name, parameter=name, parameter_shape=(4, 4)), 0)
        self.recorder.end(seq)
        self.recorder.flush()
        self.at, self.why = seq, "step"

    def breakpoints(self, conditions):
        self.asked.append(list(conditions))

    def inspect(self, what="source", *, row=0, column=0, rows=8, columns=8):
        if self.at < 3:
            raise ControlError("no tensor is at hand")
        self.asked.append((what, row, column))
        window = [[float(r * 10 + c) for c in range(column, column + 2)] for r in range(row, row + 2)]
        told = {"min": 0.0, "mean": 1.5, "max": 33.0, "absmax": 33.0, "nan_count": 0, "zero_fraction": 0.25}
        return {
            "name": NAMES[0],
            "dtype": "float32",
            "shape": [40, 40],
            "statistics": told,
            "histogram": [1, 2, 1],
            "window": window,
        }

    def pause(self):
        self.asked.append("pause")

    def release(self):
        self.asked.append("release")
        self.has_ended = True

    def close(self):
        self.recorder.close()


@pytest.fixture
def fake(tmp_path, monkeypatch) -> FakeHost:
    host = FakeHost(tmp_path)
    monkeypatch.setattr(Controlling, "connect", staticmethod(lambda _path: host))
    yield host
    host.recorder.close()


@pytest.fixture(scope="session")
def complete(demo) -> Path:
    return Path(demo.json["session"])


async def test_a_step_runs_the_paused_host_and_the_cursor_stands_on_its_call(fake, tmp_path):
    async with opened_at(tmp_path) as it:
        await it.shows("‖ paused")
        await it.press("n")
        await it.shows("after a step")
        await it.until(lambda: "▌" in it.text and "gate.weight" in it.text.split("▌")[1].splitlines()[0], "on the call")
        assert fake.asked[0] == "next"
        for key, until in (
            ("s", "any"),
            ("r", "out"),
            ("right_parenthesis", "parameter"),
            ("right_curly_bracket", "layer"),
        ):
            before = fake.at
            await it.press(key)
            await it.until(lambda before=before: it.session.host.is_paused and it.session.host.at > before, until)
            assert until in fake.asked


async def test_capitals_go_back_in_the_recording_without_touching_the_host(fake, tmp_path):
    async with opened_at(tmp_path) as it:
        await it.shows("‖ paused")
        for n in range(3):
            await it.press("n")
            await it.until(lambda n=n: it.session.host.is_paused and len(fake.left) == len(NAMES) - 1 - n, "stepped")
            await it.until(lambda: it.session.snapshot.count == fake.at, "folded")
        runs = [one for one in fake.asked if isinstance(one, str)]
        await it.press("N")
        await it.until(lambda: it.session.snapshot.now == fake.at - 2, "now is one call earlier")
        await it.press("n")
        await it.until(lambda: it.session.desk.now is None, "back at the end")
        assert [one for one in fake.asked if isinstance(one, str)] == runs


async def test_the_tensor_at_hand_scrolls_and_switches_sides(fake, tmp_path):
    async with opened_at(tmp_path) as it:
        await it.shows("‖ paused")
        await it.press("n")
        await it.shows("value at hand")
        await it.press("i")
        await it.shows("tensor at hand")
        await it.shows("float32 [40, 40]")
        assert "zeros .25" in it.text
        await it.press("j", "right")
        await it.until(lambda: ("source", 1, 1) in fake.asked, "the window moved")
        await it.shows("row 1  column 1")
        await it.press("v")
        await it.until(lambda: ("parameter", 0, 0) in fake.asked, "the other side")
        await it.press("q")
        await it.shows("after a step")


async def test_a_breakpoint_at_the_selection_is_told_to_the_host_and_taken_off_again(fake, tmp_path):
    async with opened_at(tmp_path) as it:
        await it.shows("‖ paused")
        await it.press("n")
        await it.until(
            lambda: it.session.selected() is not None and fake.at > 3 and it.session.host.is_paused, "paused"
        )
        await it.shows("after a step")
        await it.press("b")
        wanted = f'parameter ~ "{NAMES[0]}"'
        await it.until(lambda: [wanted] in fake.asked, "breakpoint told")
        await it.press("b")
        await it.until(lambda: [] in fake.asked, "breakpoint taken off")


async def test_breakpoints_are_edited_in_one_line_and_a_wrong_one_is_refused(fake, tmp_path):
    async with opened_at(tmp_path) as it:
        await it.shows("‖ paused")
        await it.press("B", *"exception;decision", "enter")
        await it.until(lambda: ["exception", "decision"] in fake.asked, "both told")
        await it.press("B", *";nonsense", "enter")
        await it.shows("unknown word 'nonsense'")
        assert it.session.desk.breakpoints == ["exception", "decision"]


async def test_when_the_host_ends_the_step_bar_says_so_and_keys_move_now(fake, tmp_path):
    async with opened_at(tmp_path) as it:
        await it.shows("‖ paused")
        await it.press("exclamation_mark")
        await it.shows("host ended")
        await it.press("n")
        await it.shows("the host ended")


async def test_leaving_a_paused_host_asks_first(fake, tmp_path):
    async with opened_at(tmp_path) as it:
        await it.shows("‖ paused")
        await it.press("q")
        await it.shows("q again leaves")
        await it.press("q")
        await it.until(lambda: it.app.return_code is not None or not it.app.is_running, "left")


async def test_on_a_recording_the_same_keys_move_now_and_coverage_goes_with_it(complete):
    async with opened_at(complete) as it:
        await it.opened()
        it.session.move_now(1200)
        await it.until(lambda: it.session.snapshot.now == 1200, "now moved")
        partly = sum("." in one.cells(10) for one in it.session.snapshot.parameters)
        await it.press("n")
        await it.until(lambda: it.session.snapshot.now > 1200, "next call")
        session = it.session.session
        assert session.event(it.session.snapshot.now).kind == "loader.called"
        await it.press("right_curly_bracket")
        await it.press("s")
        await it.press("N")
        it.session.move_now(None)
        await it.until(lambda: it.session.snapshot.now == it.session.snapshot.count - 1, "at the end")
        assert partly > 0
        assert not any("." in one.cells(10) for one in it.session.snapshot.parameters)


async def test_at_the_end_of_a_recording_a_step_says_why_nothing_happens(complete):
    async with opened_at(complete) as it:
        await it.opened()
        await it.press("n")
        await it.shows("the recording ends here, capitals go back")
        await it.press("c")
        await it.shows("no breakpoints are set")


FALLBACK = '{"in_proj_ba": ["in_proj_b", "in_proj_a"], "in_proj_qkvz": ["in_proj_qkv", "in_proj_z"]}'


@contextmanager
def running(model, folder, tp, extra=(), **watching):
    """A real load, waited for in a thread as the workbench does."""
    load = Load(model, "native", tp=tp, extra=extra)
    watch = Watch("trace", output=str(folder), **watching)
    host = host_of_load(load, check(model, launching.engine_named("native"), tp), watch)
    host.start({"OMP_NUM_THREADS": "1"})
    waiting = threading.Thread(target=host.wait)
    waiting.start()
    try:
        yield host
    finally:
        if host.is_running():
            host.interrupt()
        waiting.join(60)


@pytest.fixture
def paused_host(model, tmp_path):
    with running(model, tmp_path / "paused", 2, is_paused_at_start=True) as host:
        yield host


@pytest.fixture
def held_host(model, tmp_path):
    with running(model, tmp_path / "held", 4, ("--fused-fallback", FALLBACK), breakpoints=("exception",)) as host:
        yield host


async def test_a_load_that_fails_is_held_at_its_exception_with_the_root_cause_already_named(held_host):
    async with opened_at(held_host.folder) as it:
        await it.shows("host waits at the exception")
        await it.press("t")
        await it.shows("✗ ShapeError in weights.create")
        await it.shows("F1")
        assert "✗ held" in it.text
        await it.press("u")
        await it.until(lambda: it.session.selected()[1].kind == "weights.created", "the span around")
        await it.press("exclamation_mark")
        await it.until(
            lambda: it.session.snapshot.manifest.outcome.state == "failed", "the host failed as it would have"
        )
        await it.shows("✗ failed")


async def test_a_real_load_is_stepped_to_a_breakpoint_inspected_and_released(paused_host):
    async with opened_at(paused_host.folder) as it:
        await it.shows("‖ paused")
        await it.press("n")
        await it.until(lambda: it.session.host.why == "step" and it.session.host.is_paused, "one call on")
        await it.press("B", *(_keys('parameter ~ "*in_proj_ba*"')), "enter")
        await it.shows("breakpoints: 1")
        await it.press("c")
        await it.until(lambda: it.session.host.why == "breakpoint 1", "at the breakpoint")
        await it.shows("in_proj_ba.weight")
        await it.shows("value at hand")
        await it.press("i")
        await it.shows("bfloat16 [64, 256]")
        await it.press("q", "exclamation_mark")
        await it.until(lambda: it.session.snapshot.manifest.outcome.state == "ok", "the load ended well")


def _keys(text: str) -> list[str]:
    names = {" ": "space", "~": "tilde", '"': "quotation_mark", "*": "asterisk", "_": "underscore"}
    return [names.get(one, one) for one in text]
