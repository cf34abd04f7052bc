"""What is told of a launch: its tensors, a compiled kernel's own facts, and the device's time for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from inspectors.probe import devicetime
from inspectors.probe.devicetime import DeviceProfile, device_times
from inspectors.probe.launches import Tensors, asked, compiled, grid_of

ROOT = Path(__file__).parents[2]
COMPILE = """
import json, sys
import triton, triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from inspectors.probe.launches import compiled
sys.path.insert(0, sys.argv[1])
from kernel_file import doubled
source = ASTSource(doubled, {"x": "*fp32", "n": "i32", "block": "constexpr"}, {(2,): 256}, {})
kernel = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 8, "num_stages": 2})
print(json.dumps([compiled(kernel), kernel.metadata.shared]))
"""
KERNEL = """
import triton, triton.language as tl
@triton.jit
def doubled(x, n, block: tl.constexpr):
    at = tl.program_id(0) * block + tl.arange(0, block)
    tl.store(x + at, 2 * tl.load(x + at, mask=at < n), mask=at < n)
"""


def test_tensors_are_told_with_strides_and_the_alignment_of_their_first_elements():
    whole = torch.zeros(8, 6, dtype=torch.bfloat16)
    given = Tensors.of([whole, 3, [whole.t(), whole[:, 1:]], None, whole.view(-1)[24:], torch.tensor(1)])
    assert given.shapes == ("bfloat16[8,6]", "bfloat16[6,8]", "bfloat16[8,5]", "bfloat16[24]", "int64[]")
    assert given.strides == ("[6,1]", "[1,6]", "[6,1]", "[1]", "[]")
    assert given.alignments == (512, 512, 2, 16, 512)


def test_a_tensor_without_strides_is_told_all_the_same():
    sparse = torch.eye(2).to_sparse_csr()
    assert Tensors.of([sparse]).strides == ("",)
    assert Tensors.of([sparse]).alignments == (-1,)
    assert Tensors.of([sparse]).shapes == ("float32[2,2]",)


def test_a_grid_may_be_a_number_a_list_or_a_function_of_the_arguments():
    assert grid_of((4, 2), {}) == (4, 2)
    assert grid_of(lambda given: (given["n"] // 8,), {"n": 64}) == (8,)
    assert grid_of(7, {}) == (7,)


def test_a_kernel_that_was_compiled_tells_warps_stages_and_shared_memory(tmp_path):
    pytest.importorskip("triton.backends.nvidia")
    (tmp_path / "kernel_file.py").write_text(KERNEL)
    # A process of its own: the other tests here run with the interpreter, which the compiler does not know.
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", "-c", COMPILE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200, env=environment)
    assert done.returncode == 0, done.stderr
    told, shared = json.loads(done.stdout)
    assert told == {"num_warps": 8, "num_stages": 2, "shared_bytes": shared}  # no registers: it was never loaded


def test_a_kernel_that_was_loaded_tells_registers_and_spills_too():
    metadata = namedtuple("KernelMetadata", "num_warps num_stages shared")(4, 3, 49152)  # noqa: PYI024 - as triton's is
    loaded = SimpleNamespace(metadata=metadata, n_regs=168, n_spills=12)
    facts = {"num_warps": 4, "num_stages": 3, "shared_bytes": 49152, "registers": 168, "spills": 12}
    assert compiled(loaded) == facts
    assert compiled(SimpleNamespace(metadata=metadata, n_regs=None, n_spills=None)).keys() == facts.keys() - {
        "registers",
        "spills",
    }
    assert compiled(None) == {}
    assert asked({"num_warps": 8, "num_stages": None, "other": 3}) == {"num_warps": 8}


def event(name, time_us, device="CPU"):
    return SimpleNamespace(name=name, device_time_total=time_us, device_type=SimpleNamespace(name=device))


def test_device_times_are_those_of_the_blocks_that_launches_ran_in():
    events = [
        event("loadscope launch 3", 12.5), event("aten::mm", 12.5), event("void gemm_kernel", 12.5, "CUDA"),
        event("loadscope launch 4", 0.0), event("loadscope launch 3", 99.0, "CUDA"),  # the device's copy of the block
        event("loadscope launch is what a host may say", 1.0), event("loadscope launch 5", 0.25),
    ]  # fmt: skip
    assert device_times(events) == {3: 12500, 5: 250}
    before_torch_2_4 = SimpleNamespace(name="loadscope launch 7", cuda_time_total=2.0)
    assert device_times([before_torch_2_4]) == {7: 2000}


def test_every_launch_of_a_profiled_pass_has_a_block_of_its_own_that_holds_what_it_launched():
    profile = DeviceProfile.begun([torch.profiler.ProfilerActivity.CPU])
    try:
        for key in (1, 2):
            with profile.launch(key):
                torch.ones(4) * key
    finally:
        times = profile.finish()
    assert times == {}  # a CPU is no device that works beside the host
    blocks = {one.name: one for one in profile._profile.events() if one.name.startswith("loadscope")}
    assert list(blocks) == ["loadscope launch 1", "loadscope launch 2"]
    assert "aten::mul" in {child.name for child in blocks["loadscope launch 2"].cpu_children}


def test_a_profiler_of_the_host_goes_first():
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]):
        assert devicetime.why_not() == "a profiler of the host is running"
    assert devicetime.why_not() == ""


def test_there_is_one_profile_of_ours_at_a_time():
    activities = [torch.profiler.ProfilerActivity.CPU]
    profile = DeviceProfile.begun(activities)
    assert DeviceProfile.begun(activities) is None
    profile.finish()
    again = DeviceProfile.begun(activities)
    assert again is not None
    again.finish()


def test_without_an_accelerator_nothing_is_profiled(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert devicetime.device_activity() is None


@pytest.mark.gpu
def test_a_gpu_tells_how_long_it_worked_for_a_launch():
    activity = devicetime.device_activity()
    x = torch.randn(2048, 2048, device="cuda")
    x @ x
    torch.cuda.synchronize()
    profile = DeviceProfile.begun([torch.profiler.ProfilerActivity.CPU, activity])
    with profile.launch(1):
        x @ x
    with profile.launch(2):
        x + 1
    torch.cuda.synchronize()
    times = profile.finish()
    assert times[1] > times[2] > 0
