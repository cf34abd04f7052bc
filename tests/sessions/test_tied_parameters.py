"""A tied parameter is filled by what filled the other one; what shares memory within a module was made so later."""

from __future__ import annotations

from inspectors.probe.events import LoaderCalled, ModelLoaded, ParameterRegistered, WeightWritten
from inspectors.probe.recorder import Recorder
from sessions.parameters import parameter, parameters


def test_a_tied_parameter_is_filled_by_another_modules_and_not_by_its_own(tmp_path, opened):
    recorder = Recorder(tmp_path)
    for name in ("embed.weight", "head.weight", "experts.scale", "experts.swizzled"):
        recorder.point(ParameterRegistered(name, shape=(4,)), 0)
    for name in ("embed.weight", "experts.scale"):
        call = recorder.begin(LoaderCalled(name, name, outcome="returned"), 0)
        recorder.point(WeightWritten(name, start=(0,), length=(4,), elements=4), 0)
        recorder.end(call)
    pairs = {"head.weight": "embed.weight", "experts.swizzled": "experts.scale"}
    recorder.point(ModelLoaded(4, tied=tuple(pairs), tied_to=tuple(pairs.values())), 0)
    recorder.close()
    session = opened(tmp_path)
    missing = {view.name: view.coverage.never_written for view in parameters(session)}
    assert missing == {"embed.weight": 0, "head.weight": 0, "experts.scale": 0, "experts.swizzled": 4}
    (head,) = parameter(session, "head.weight")
    assert (head.tied_to, head.coverage.never_written) == ("embed.weight", 0)
