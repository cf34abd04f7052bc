"""Whatever goes wrong in the probe, the host's results and exceptions stay what they were."""

from __future__ import annotations

import pytest

FAULTY = """
from inspectors.probe.events import WeightsMapped
class Faulty:
    stages = frozenset({"weight.load", "weight.map", "tensor.read", "method.select"})
    level = "calls"
    tracepoints = ()
    def start(self, probe): pass
    def enter(self, call):
        if FAULT == "enter": raise RuntimeError("bad inspector")
        if FAULT == "open span": call.probe.recorder.begin(WeightsMapped()); raise RuntimeError("bad inspector")
    def leave(self, call):
        if FAULT == "leave": raise RuntimeError("bad inspector")
    def failed(self, call, error):
        if FAULT == "failed": raise RuntimeError("bad inspector")
INSPECTOR = Faulty()
"""

FAIL_IN_LOADER = """
import traceback
from toyengine.models.toy import Model
from toyengine.tensors import Tensor
model = Model()
try:
    model.load_weights(iter([("a.weight", Tensor([1, 2, 3]))]))
except ValueError as error:
    print(type(error).__name__, error, error.__cause__, error.__context__, vars(error))
    print([f.name for f in traceback.extract_tb(error.__traceback__) if "inspectors" not in f.filename])
"""


def test_a_host_exception_is_recorded_once_at_the_innermost_tracepoint(toy):
    host = toy.run(FAIL_IN_LOADER)
    assert [e.body["failed_stage"] for e in host.of("stage.failed")] == ["weight.load"]
    failed = host.of("stage.failed")[0]
    call = host.of("loader.called")[0]
    assert failed.body["error"] == "ValueError"
    assert failed.body["message"] == "a: 3 values for 2"
    assert (failed.body["parameter"], failed.body["module"]) == ("a.weight", "a")
    assert failed.body["call"] == failed.parent == call.seq
    assert failed.body["frames"][0].endswith("toy.py:12 Layer.load")
    assert failed.body["where"].endswith("toy.py:12")
    assert not [frame for frame in failed.body["frames"] if "inspectors" in frame]
    assert call.body["outcome"] == "raised"
    assert host.of("weights.mapped")[0].dur_ns is not None


def test_the_host_catches_the_same_exception_as_without_the_probe(toy):
    with_probe, without = toy.run(FAIL_IN_LOADER), toy.run(FAIL_IN_LOADER, is_armed=False)
    assert with_probe.out == without.out
    assert with_probe.err == without.err == ""


def test_an_exception_object_passes_through_untouched(toy):
    host = toy.run("""
from toyengine.methods import Plain
class Odd(ValueError):
    __slots__ = ()
    def __str__(self): raise KeyError("no text")
error = Odd()
class Layer:
    prefix = "x"
    @property
    def load(self): raise error
try: Plain().create_weights(Layer(), 1)
except ValueError as caught: print(caught is error, caught.args)
""")
    assert host.out == "True ()\n"
    assert "KeyError" in host.of("stage.failed")[0].body["message"]


def test_an_error_of_the_weights_iterator_keeps_its_place_and_object(toy):
    host = toy.run("""
from toyengine.reading import iterate, open_checkpoint
from toyengine.models.toy import Model
try: Model().load_weights(iterate(open_checkpoint("x"), fail_at="b.weight"))
except OSError as error: print(error)
""")
    assert host.out == "cannot read b.weight\n"
    assert [e.body["failed_stage"] for e in host.of("stage.failed")] == ["tensor.read"]


def test_an_interrupt_is_recorded_and_goes_on(toy):
    host = toy.run("""
from toyengine.methods import Plain
class Layer:
    prefix = "x"
    @property
    def load(self): raise KeyboardInterrupt
try: Plain().create_weights(Layer(), 1)
except KeyboardInterrupt: print("stopped")
""")
    assert host.out == "stopped\n"
    assert host.of("stage.failed")[0].body["error"] == "KeyboardInterrupt"


@pytest.mark.parametrize("place", ["enter", "leave", "open span"])
def test_a_faulting_inspector_is_disabled_once_and_the_load_goes_on(toy, load_code, place):
    toy.write("faulty.py", f"FAULT = {place!r}\n" + FAULTY)
    toy.write_manifest(inspectors=["faulty", *toy.manifest["inspectors"]])
    host = toy.run(load_code)
    assert host.out == toy.run(load_code, is_armed=False).out
    assert host.err == ""
    faulted = host.of("inspector.faulted")
    assert [(f.body["inspector"], f.body["error"]) for f in faulted] == [("faulty", "RuntimeError: bad inspector")]
    assert len(host.of("loader.called")) == 3
    assert all(e.dur_ns is not None for e in host.events)


def test_a_fault_while_a_host_exception_passes_changes_nothing_of_it(toy):
    toy.write("faulty.py", "FAULT = 'failed'\n" + FAULTY)
    toy.write_manifest(inspectors=[*toy.manifest["inspectors"], "faulty"])
    host = toy.run(FAIL_IN_LOADER)
    assert host.out == toy.run(FAIL_IN_LOADER, is_armed=False).out
    assert len(host.of("inspector.faulted")) == len(host.of("stage.failed")) == 1


def test_an_unreadable_session_folder_ends_the_recording_and_not_the_load(toy, load_code):
    (toy.session / "streams").write_text("a file where a folder should be")
    host = toy.run(load_code)
    assert host.code == 0
    assert host.out == toy.run(load_code, is_armed=False).out
    assert "recording ended, the host goes on" in host.err


def test_a_host_that_closed_its_standard_error_still_runs(toy, load_code):
    (toy.session / "streams").write_text("a file where a folder should be")
    host = toy.run("import sys; sys.stderr = None\n" + load_code)
    assert (host.code, host.err) == (0, "")


def test_wrapped_functions_keep_their_names_signatures_and_arguments(toy):
    host = toy.run("""
import inspect, pickle
from toyengine.skipping import is_skipped
from toyengine.methods import Plain, decide, PlainConfig
print(is_skipped.__name__, is_skipped.__module__, inspect.signature(is_skipped), decide is is_skipped)
print(inspect.isgeneratorfunction(is_skipped.__wrapped__), pickle.loads(pickle.dumps(is_skipped)) is is_skipped)
print(inspect.signature(Plain.create_weights), PlainConfig.method.__self__ is PlainConfig)
from toyengine.reading import iterate
given = iterate([("a", [1])])
print(inspect.isgenerator(given), next(given)[0], given.close(), list(given))
""")
    assert host.err == ""
    assert host.out.splitlines() == [
        "is_skipped toyengine.skipping (prefix, ignored, mapping={}) True",
        "False True",
        "(self, layer, size) True",
        "True a None []",
    ]


def test_a_loader_in_disguise_still_is_the_loader(toy):
    host = toy.run("""
import copy, inspect, types
from toyengine.models.toy import Model
from toyengine.reading import iterate, open_checkpoint
model = Model()
before = model.layers[0].weight.weight_loader
model.load_weights(iterate(open_checkpoint("x")))
after = model.layers[0].weight.weight_loader
print(after == before, before == after, hash(after) == hash(before), isinstance(after, types.MethodType))
print(inspect.ismethod(after), after.__self__ is model.layers[0], after.__func__ is before.__func__, after.__name__)
print(after in {before}, repr(after) == repr(before), type(copy.deepcopy(after)).__name__)
print(model.b.weight_loader == model.layers[0].load, "weight_loader" in vars(model.c))
""")
    assert host.out.splitlines() == [
        "True True True True", "True True True load", "True True method", "True False",
    ]  # fmt: skip


def test_a_subclass_made_late_is_seen(toy):
    host = toy.run("""
from toyengine.methods import Config, Plain
class Late(Plain):
    def create_weights(self, layer, size): return super().create_weights(layer, size)
class Layer:
    prefix = "late"
    load = None
Late().create_weights(Layer(), 1)
""")
    created = host.of("weights.created")
    assert [(e.body["module"], e.body["method"]) for e in created] == [("late", "Late")]


def test_what_does_not_resolve_is_said(toy, load_code):
    toy.write("toyadapter.py", (toy.folder / "toyadapter.py").read_text().replace("default_loader", "renamed_loader"))
    host = toy.run(load_code)
    missing = host.of("tracepoint.missing")
    assert [(e.body["engine"], e.body["target"]) for e in missing] == [("toy", "toyengine.loading:renamed_loader")]
    assert "has no renamed_loader" in missing[0].body["reason"]
    assert missing[0].body["wanted_stage"] == "weight.load"
    assert len(host.of("loader.called")) == 2


def test_a_module_that_is_not_there_is_said_at_the_end(toy, load_code):
    adapter = (toy.folder / "toyadapter.py").read_text()
    toy.write("toyadapter.py", adapter.replace("toyengine.loading:", "toyengine.gone:"))
    missing = toy.run(load_code).of("tracepoint.missing")
    assert [e.body["reason"] for e in missing] == ["there is no module toyengine.gone"]


@pytest.mark.parametrize("is_used", [True, False])
def test_a_method_that_no_class_has_is_said_of_an_engine_that_was_used(toy, load_code, is_used):
    adapter = (toy.folder / "toyadapter.py").read_text()
    toy.write("toyadapter.py", adapter.replace("Method+.create_weights", "Method+.renamed"))
    missing = toy.run(load_code if is_used else "import toyengine.methods\n").of("tracepoint.missing")
    assert [e.body["reason"] for e in missing] == ["none of the classes here defines renamed"] * is_used


def test_a_builtin_is_never_patched(toy, load_code):
    toy.write("toyengine/loading.py", "default_loader = print\n")
    host = toy.run("import toyengine.loading\nprint(toyengine.loading.default_loader is print)")
    assert host.out == "True\n"
    missing = host.of("tracepoint.missing")
    assert "is not a Python function" in missing[0].body["reason"]


def test_a_host_profiler_keeps_all_its_events(toy):
    code = """
import sys, collections
from toyengine.skipping import is_skipped
seen = collections.Counter()
def profile(frame, event, arg): seen[(event, frame.f_code.co_name)] += 1
sys.setprofile(profile); is_skipped("a", ["a"]); sys.setprofile(None)
print(seen["call", "is_skipped"], seen["return", "is_skipped"], sys.getprofile())
"""
    host = toy.run(code)
    assert host.out == toy.run(code, is_armed=False).out == "1 1 None\n"
    assert host.of("skip.decided")[0].body["tried"] == ["a"]


def test_levels_choose_which_inspectors_run(toy, load_code):
    toy.write("deep.py", FAULTY.replace('"calls"', '"values"') + "FAULT = 'enter'\n")
    toy.write_manifest(inspectors=["deep"])
    assert toy.run(load_code).of("inspector.faulted") == []


def test_a_cap_on_events_is_recorded_and_the_host_goes_on(toy, load_code):
    toy.write_manifest(max_events=6)
    host = toy.run(load_code)
    assert host.code == 0
    assert [e.seq for e in host.events] == list(range(1, 8))
    assert host.events[-1].kind == "recording.capped"
    assert host.events[-1].body == {"limit": "max_events", "value": 6}
