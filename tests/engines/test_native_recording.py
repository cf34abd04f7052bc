"""What is recorded of the native stack equals what other means count, and changes nothing of the load."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from safetensors.torch import load_file

COUNT_LOADER_CALLS = """
calls, choices = collections.Counter(), collections.Counter()
def profile(frame, event, arg):
    if event == "call" and frame.f_back is not None and frame.f_back.f_code.co_name == "load_model_weights":
        # A property of that name, which is read before the call, has one argument.
        is_loader = frame.f_code.co_filename.rpartition("/")[0].endswith("layers") and frame.f_code.co_argcount > 1
        if is_loader: calls[getattr(frame.f_code, "co_qualname", frame.f_code.co_name)] += 1
    if event == "call" and frame.f_code.co_name == "choose" and frame.f_code.co_filename.endswith("kernels/choice.py"):
        choices[f"{frame.f_locals['module']} {frame.f_locals['op']}"] += 1
threading.setprofile(profile)
"""

COUNTED = "said['calls'], said['choices'] = calls, choices"

COUNT_SPLITS = """
from torch.overrides import TorchFunctionMode
import backends.native.loader as loader
read, cuts = set(), collections.Counter()
iterate = loader.iterate_weights
def remember(checkpoint):
    for name, tensor in iterate(checkpoint):
        read.clear(); read.add(tensor.untyped_storage().data_ptr()); yield name, tensor
loader.iterate_weights = remember
class Cuts(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func in (torch.Tensor.narrow, torch.Tensor.split, torch.Tensor.__getitem__, torch.Tensor.chunk,
                    torch.split, torch.chunk):
            if args[0].untyped_storage().data_ptr() in read:
                parts = out if isinstance(out, (tuple, list)) else [out]
                cuts[threading.current_thread().name] += sum(part.numel() < args[0].numel() for part in parts)
        return out
run = threading.Thread.run
def run_with_mode(self):
    if not self.name.startswith("tp_rank"): return run(self)
    with Cuts(): run(self)
threading.Thread.run = run_with_mode
"""

COUNT_KERNELS = """
from torch.utils._python_dispatch import TorchDispatchMode
kernels = collections.Counter()
class Count(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kernels[func._schema.name] += 1
        return func(*args, **(kwargs or {}))
for model in {type(model) for model in loaded.models}:
    def forward(self, *args, __forward=model.forward, **kwargs):
        with Count(): return __forward(self, *args, **kwargs)
    model.forward = forward
"""

BREAK_THE_HEAD = """
for model in loaded.models:
    model.lm_head.weight = torch.nn.Parameter(torch.zeros(7, 3, dtype=torch.bfloat16), requires_grad=False)
whole = generate
def generate(*given):
    try: return whole(*given)
    except RuntimeError as error: return str(error).splitlines()[0]
"""

A_DEVICE_THAT_TELLS_NUMBERS = """
from inspectors.probe import devicetime
devicetime.device_activity = lambda: torch.profiler.ProfilerActivity.CPU
blocks = lambda events: [int(e.name.split()[-1]) for e in events if e.name.startswith("loadscope launch")]
devicetime.device_times = lambda events: {key: 1000 * key for key in blocks(events)}
"""

A_HOST_THAT_PROFILES = """
whole = generate
def generate(*given):
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]): return whole(*given)
"""

COUNT_TRITON = """
import triton.runtime.interpreter as interpreter
launches = collections.Counter()
call = interpreter.GridExecutor.__call__
def counted(self, *args, **kwargs):
    launches[self.fn.__name__] += 1
    return call(self, *args, **kwargs)
interpreter.GridExecutor.__call__ = counted
"""


@pytest.fixture(scope="module")
def calls_run(run_host):
    return run_host("calls")


@pytest.mark.parametrize("level", ["calls", "ledger", "values"])
@pytest.mark.parametrize("model", ["fp8", "bf16"])
def test_parameters_and_tokens_are_bit_identical_with_and_without_the_probe(run_host, level, model):
    without, watched = run_host(None, model=model), run_host(level, model=model)
    assert without.code == watched.code == 0, watched.err
    assert watched.said == without.said
    assert watched.of("inspector.faulted", "tracepoint.missing") == []


def test_recorded_loader_calls_equal_a_count_by_the_profiler(run_host, calls_run, checkpoints):
    counted = run_host(None, code=(COUNT_LOADER_CALLS, "", COUNTED)).said["calls"]
    by_function: Counter[str] = Counter()
    for name, count in counted.items():
        by_function[name.rpartition(".")[2]] += count
    recorded = Counter(call.body["loader"].rpartition(".")[2] for call in calls_run.of("loader.called"))
    index = json.loads((checkpoints["fp8"] / "model.safetensors.index.json").read_text())
    assert recorded == by_function
    assert sum(recorded.values()) == 2 * len(index["weight_map"])


def test_recorded_choices_of_kernels_equal_a_count_by_the_profiler(run_host, calls_run):
    counted = run_host(None, code=(COUNT_LOADER_CALLS, "", COUNTED)).said["choices"]
    chosen = calls_run.of("kernel.chosen")
    assert Counter(f"{one.body['module']} {one.body['op']}" for one in chosen) == counted
    assert counted["model.layers.0.linear_attn.norm rms_norm_gated"] == 2  # one a rank
    assert {one.rank for one in chosen} == {0, 1}


def test_every_loader_call_knows_the_tensor_it_was_given(calls_run):
    by_name = {event.body["checkpoint_name"]: event.body for event in calls_run.of("tensor.listed")}
    reads = Counter(event.body["checkpoint_name"] for event in calls_run.of("tensor.read"))
    assert set(reads.values()) == {1}
    assert set(reads) == set(by_name)
    for call in calls_run.of("loader.called"):
        listed = by_name[call.body["checkpoint_name"]]
        assert call.body["tensor_shape"] == listed["shape"]
        assert call.body["tensor_bytes"] == listed["end"] - listed["begin"]
        assert call.body["outcome"] == "returned"
    assert {event.rank for event in calls_run.of("loader.called")} == {0, 1}


def test_recorded_splits_equal_a_count_by_a_function_mode(run_host):
    counted = run_host(None, tp=4, code=(COUNT_SPLITS, "", "said['cuts'] = cuts")).said["cuts"]
    recorded = Counter(f"tp_rank {split.rank}" for split in run_host("calls", tp=4).of("shard.split"))
    assert recorded == counted
    assert sum(counted.values()) > 500


def test_recorded_kernels_equal_a_count_by_a_dispatch_mode(run_host, calls_run):
    counted = run_host(None, code=("", COUNT_KERNELS, "said['kernels'] = kernels")).said["kernels"]
    recorded = Counter(launch.body["name"] for launch in calls_run.of("kernel.launched"))
    assert recorded == counted
    assert recorded["native::rms_norm"] > 0
    at_values = run_host("values").of("kernel.launched")
    assert Counter(launch.body["name"] for launch in at_values) == counted
    forwards = calls_run.of("forward.ran")
    assert [(f.body["phase"], f.body["tokens"], f.rank) for f in forwards] == [
        ("prefill", 3, 0), ("prefill", 3, 1), ("decode", 1, 0), ("decode", 1, 1),
    ]  # fmt: skip


def test_the_operator_that_raises_is_recorded_like_those_before_it(run_host):
    broken = {"model": "bf16", "tp": 1}
    counted = run_host(None, code=("", COUNT_KERNELS + BREAK_THE_HEAD, "said['kernels'] = kernels"), **broken)
    watched = run_host("calls", code=("", BREAK_THE_HEAD, ""), **broken)
    assert "cannot be multiplied" in counted.said["tokens"]
    assert watched.said["tokens"] == counted.said["tokens"]
    launches = watched.of("kernel.launched")
    assert Counter(launch.body["name"] for launch in launches) == counted.said["kernels"]
    assert (launches[-1].body["name"], launches[-1].body["outputs"]) == ("aten::mm", [])


def test_the_time_of_a_device_comes_to_the_launch_it_was_taken_for(run_host):
    watched = run_host("values", model="bf16", tp=1, code=(A_DEVICE_THAT_TELLS_NUMBERS, "", ""))
    plain = run_host(None, model="bf16", tp=1)
    assert watched.said["tokens"] == plain.said["tokens"]
    forwards = watched.of("forward.ran")
    assert [forward.body["device_times"] for forward in forwards] == ["profiler", "profiler"]
    for forward in forwards:
        launches = [launch for launch in watched.of("kernel.launched") if launch.parent == forward.seq]
        assert [launch.body["device_ns"] for launch in launches] == [1000 * (n + 1) for n in range(len(launches))]
        assert len(launches) > 100
        assert all(launch.dur_ns > 0 and launch.body["outputs"] for launch in launches if launch.body["shapes"])


def test_a_host_that_profiles_itself_is_left_alone_and_told_of(run_host):
    watched = run_host("values", model="bf16", tp=1, code=(A_DEVICE_THAT_TELLS_NUMBERS, A_HOST_THAT_PROFILES, ""))
    assert watched.code == 0, watched.err
    told = {forward.body["device_times"] for forward in watched.of("forward.ran")}
    assert told == {"a profiler of the host is running"}
    assert {launch.body["device_ns"] for launch in watched.of("kernel.launched")} == {-1}
    assert watched.of("inspector.faulted") == []


def test_a_kernel_knows_its_module_shapes_and_duration(calls_run):
    norms = [k for k in calls_run.of("kernel.launched") if k.body["name"] == "native::rms_norm"]
    modules = {k.body["module"] for k in norms}
    assert "model.layers.0.input_layernorm" in modules
    first = next(k for k in norms if k.body["module"] == "model.norm")
    assert first.body["shapes"] == ["bfloat16[3,256]", "bfloat16[256]"]
    assert first.body["outputs"] == ["bfloat16[3,256]"]
    assert first.body["launcher"] == "custom"
    assert first.body["strides"] == ["[256,1]", "[1]"]
    assert first.body["alignments"] == [512, 512]
    assert {first.body[name] for name in ("num_warps", "shared_bytes", "registers", "spills", "device_ns")} == {-1}
    assert first.dur_ns > 0


def test_recorded_triton_launches_equal_a_count_in_the_interpreter(run_host):
    options = {"model": "small", "kernels": "triton", "variables": {"TRITON_INTERPRET": "1"}}
    counted = run_host(None, code=(COUNT_TRITON, "", "said['launches'] = launches"), **options).said["launches"]
    recorded = run_host("calls", **options)
    launches = [k for k in recorded.of("kernel.launched") if k.body["launcher"] == "triton"]
    assert Counter(k.body["name"] for k in launches) == counted
    assert counted
    by_seq = {event.seq: event for event in recorded.events}
    for launch in launches:
        assert launch.body["grid"]
        assert by_seq[launch.parent].kind in {"kernel.launched", "forward.ran"}
        assert len(launch.body["strides"]) == len(launch.body["alignments"]) == len(launch.body["shapes"])
    norms = [launch.body for launch in launches if launch.body["name"] == "rms_norm_kernel"]
    assert {norm["num_warps"] for norm in norms} == {4}


def test_the_ledger_rebuilds_every_parameter_from_the_checkpoint(run_host, checkpoints, tmp_path):
    run = run_host("ledger", tp=4, save=str(tmp_path / "parameters.safetensors"))
    assert run.code == 0, run.err
    kept = load_file(tmp_path / "parameters.safetensors")
    on_disk = {}
    for file in checkpoints["fp8"].glob("*.safetensors"):
        on_disk.update(load_file(file))
    calls = {call.seq: call for call in run.of("loader.called")}
    rebuilt = {name: tensor.clone().view(-1).fill_(7).view(tensor.shape) for name, tensor in kept.items()}
    for write in run.of("weight.written"):
        body = write.body
        where = tuple(slice(s, s + n) for s, n in zip(body["start"], body["length"], strict=True))
        source = on_disk[calls[write.parent].body["checkpoint_name"]]
        taken = tuple(slice(s, s + n) for s, n in zip(body["source_start"], body["source_length"], strict=True))
        assert body["source"] == ""
        rebuilt[f"{write.rank}/{body['parameter']}"][where].copy_(source[taken])
    assert {name for name in kept if not same_bits(kept[name], rebuilt[name])} == set()


def same_bits(one, other) -> bool:
    import torch

    return torch.equal(one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8))


def test_a_wrong_fallback_is_recorded_as_the_decision_before_the_failure(run_host):
    wrong = """
import backends.native.loader as loader
fallback = {"in_proj_ba": ["in_proj_b", "in_proj_a"], "in_proj_qkvz": ["in_proj_qkv", "in_proj_z"],
            **loader.DEFAULT_FUSED_FALLBACK}
options_class = loader.LoadOptions
loader.LoadOptions = lambda **kwargs: options_class(**kwargs, fused_fallback=fallback)
"""
    run = run_host("calls", tp=4, code=(wrong, "", ""))
    assert run.code == 1
    assert "Weight output_partition_size = 8 is not divisible by weight quantization block_n = 128" in run.err
    (failed,) = run.of("stage.failed")
    assert failed.body["module"] == "model.layers.0.linear_attn.in_proj_ba"
    assert failed.body["failed_stage"] == "weights.create"
    assert failed.body["frames"][0].endswith("require_whole_blocks")
    decided = {d.body["module"]: d.body for d in run.of("skip.decided")}[failed.body["module"]]
    assert decided["expansion_source"] == "fallback"
    assert decided["is_skipped"] == 0
    assert decided["matched_entry"] == -1
    assert decided["tried"] == [f"model.layers.0.linear_attn.{name}" for name in ("in_proj_b", "in_proj_a")]
    assert failed.body["module"] in decided["ignored"]
