"""What an adapter can say beyond the name of a function: computed values, versions, and layers that are named early."""

from __future__ import annotations

import gc

import pytest

from inspectors.probe.call import Binding, Call
from inspectors.probe.layers import LayerNames
from inspectors.probe.tracepoint import Computed, Tracepoint, version_key


def called(arguments, function, *args, **kwargs):
    point = Tracepoint("method.select", "skip.decided", "toy:function", arguments)
    return Call(None, point, Binding(function, arguments), args, kwargs)


def skip(prefix, mapping=None):
    parts = [prefix]
    return bool(parts and mapping)


def test_a_computed_value_is_worked_out_from_arguments_locals_and_the_result():
    wanted = Computed(lambda *found: found, ("prefix", "mapping", "local:parts", "result", "local:absent"))
    call = called({"source": wanted}, skip, "layer.q", mapping={"q": 1})
    call.locals, call.result = {"parts": ["layer.q"]}, True
    assert call.binding.wants_locals
    assert call.get("source") == ("layer.q", {"q": 1}, ["layer.q"], True, None)


def test_locals_are_watched_only_where_an_adapter_reads_them():
    assert not called({"source": Computed(lambda prefix: prefix, ("prefix",))}, skip, "q").binding.wants_locals


@pytest.mark.parametrize(
    ("since", "before", "version", "is_expected"),
    [
        ("", "", "0.5.10", True), ("0.5.11", "", "0.5.10", False), ("0.5.11", "", "0.5.11.post1", True),
        ("", "0.5.11", "0.5.9", True), ("", "0.5.11", "0.5.11", False), ("0.5.11", "", "0.10.0rc1", True),
        ("0.5.11", "", "", True), ("", "0.5.11", "source", False),
    ],
)  # fmt: skip
def test_a_function_is_missed_only_in_versions_that_should_have_it(since, before, version, is_expected):
    point = Tracepoint("weight.load", "loader.called", "m:f", since=since, before=before)
    assert point.is_expected(version) is (is_expected or version == "source")


def test_versions_are_compared_by_their_numbers():
    assert version_key("0.5.10.post1") == (0, 5, 10) > version_key("0.5.9")
    assert version_key("1.0rc2") == (1, 0)


class Layer:
    def named_modules(self):
        return [("", self), ("model.q", self.q)]


def test_a_layer_that_the_model_calls_otherwise_is_told_by_both_names():
    names, model = LayerNames(), Layer()
    model.q = Layer()
    names.note(model.q, "language_model.model.q")
    assert names.of(model.q) == "language_model.model.q"
    assert names.note_model(model) == {"model.q": "language_model.model.q"}
    assert names.of(model.q) == "model.q"
    assert names.note_model(model) == {}


def test_the_names_of_layers_keep_no_layer_alive_and_take_anything():
    names, layer = LayerNames(), Layer()
    names.note(layer, "q")
    names.note(7, "not weakly held")
    del layer
    gc.collect()
    assert (len(names._names), names.of(7), names.of([])) == (0, "", "")
