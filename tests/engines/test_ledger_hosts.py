"""Loads that hand their copies to threads, and past torch, are followed or told; ghost loads agree with the ledger."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

BY_THREADS = """
import itertools
from concurrent.futures import ThreadPoolExecutor
import backends.native.layers.parameter as parameter
copy, pool, waiting, count = parameter.copy_checked, ThreadPoolExecutor(2), [], itertools.count()
def copy_checked(destination, source, name):
    way = next(count) % 4
    if "conv1d" in name:
        destination.view(torch.int16).numpy()[...] = source.view(torch.int16).numpy()
    elif way == 0:
        copy(destination, source, name)
    elif way == 1:
        pool.submit(copy, destination, source, name).result()
    elif way == 2:
        thread = threading.Thread(target=copy, args=(destination, source, name))
        thread.start()
        thread.join()
    else:
        waiting.append(pool.submit(copy, destination, source, name))
parameter.copy_checked = copy_checked
import backends.native.weights as weights
fill = weights.load_model_weights
def load_model_weights(model, *rest):
    report = fill(model, *rest)
    norm = model.model.norm.weight
    torch.utils.swap_tensors(norm, torch.nn.Parameter(norm.detach().clone(), requires_grad=False))
    return report
weights.load_model_weights = load_model_weights
import backends.native.loader as loader
process = loader.process_weights
def process_weights(model):
    for one in waiting: one.result()
    process(model)
loader.process_weights = process_weights
start, submit = threading.Thread.start, ThreadPoolExecutor.submit
"""
AFTERWARDS = """
said["ways"] = next(count)
said["are_doors_as_before"] = threading.Thread.start is start and ThreadPoolExecutor.submit is submit
"""


def beside(name: str):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def by_threads(run_host, tmp_path_factory):
    kept = tmp_path_factory.mktemp("kept") / "parameters.safetensors"
    return run_host("ledger", model="small", tp=2, code=(BY_THREADS, "", AFTERWARDS), save=str(kept)), load_file(kept)


def test_copies_that_a_loader_hands_to_threads_are_told_as_its_own(by_threads, checkpoints):
    run, kept = by_threads
    assert run.code == 0, run.err
    assert run.said["ways"] > 100
    assert run.of("inspector.faulted") == []
    on_disk = {}
    for file in checkpoints["small"].glob("*.safetensors"):
        on_disk.update(load_file(file))
    calls = {call.seq: call for call in run.of("loader.called")}
    rebuilt = {name: torch.zeros_like(tensor) for name, tensor in kept.items()}
    for write in run.of("weight.written"):
        if write.body["operation"] == "data =":
            continue
        body, call = write.body, calls[write.parent]
        assert (call.rank, call.body["parameter"]) == (write.rank, body["parameter"])
        where = tuple(slice(s, s + n) for s, n in zip(body["start"], body["length"], strict=True))
        taken = tuple(slice(s, s + n) for s, n in zip(body["source_start"], body["source_length"], strict=True))
        rebuilt[f"{write.rank}/{body['parameter']}"][where].copy_(on_disk[call.body["checkpoint_name"]][taken])
    differing = {name for name in kept if not torch.equal(kept[name], rebuilt[name])}
    assert differing == {name for name in kept if "conv1d" in name}


def test_writes_past_torch_are_suspected_of_their_parameters_and_of_no_others(by_threads):
    run, kept = by_threads
    suspected = {f"{event.rank}/{event.body['parameter']}" for event in run.of("write.suspected")}
    assert suspected == {name for name in kept if "conv1d" in name}
    assert suspected


def test_memory_that_a_parameter_is_given_outside_of_its_loader_is_told(by_threads):
    run, _ = by_threads
    given = [write for write in run.of("weight.written") if write.body["operation"] == "data ="]
    told = [(write.rank, write.body["parameter"], write.body["source"]) for write in given]
    assert sorted(told) == [(rank, "model.norm.weight", "unknown") for rank in (0, 1)]


def test_the_doors_to_threads_are_as_they_were_after_the_load(by_threads):
    assert by_threads[0].said["are_doors_as_before"]
