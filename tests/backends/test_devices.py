"""Devices: how they are found and refused, what they allow, and what a load says of them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from backends.devices.errors import DeviceError
from backends.devices.limits import LIMITS, LaunchLimits, why_grid_is_refused
from backends.devices.placement import device_named, device_of_type, devices_with, modules, place
from backends.native.checkpoint.synthesize import write_checkpoint
from backends.native.cli import main
from backends.native.errors import KernelError
from backends.native.generate import generate
from backends.native.kernels import choice
from backends.native.kernels.choice import REFERENCE, alternative, kernel, kinds_on
from backends.native.loader import LoadOptions, load
from backends.native.models import qwen3_next

HAS_GPU = torch.cuda.is_available()
W8A8 = {"quant_method": "modelslim", "model_quant_type": "W8A8_DYNAMIC"}
MAX_FILE_BYTES = 16 << 20


def config_only(folder: Path, **fields: object) -> Path:
    """A checkpoint folder of which only config.json is there: whoever opens its tensors fails."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(qwen3_next.tiny_config() | fields), encoding="utf-8")
    return folder


def test_every_device_answers_before_it_is_started():
    for name in modules():
        device = device_named(name)
        assert device.why_not() is None or device.why_not()
        assert device.limits in LIMITS.values()
        assert device.missing_dtypes <= {value for value in vars(torch).values() if isinstance(value, torch.dtype)}


@pytest.mark.parametrize(("name", "nearest"), [("cdua", "cuda"), ("simulated_npu", "simulated-npu"), ("nul", "null")])
def test_an_unknown_device_is_refused_with_the_nearest_name(name: str, nearest: str):
    with pytest.raises(DeviceError, match=f"did you mean {nearest}") as caught:
        place(name)
    assert str(caught.value).startswith(f"device {name!r} is not known.\n  try: ")


def test_an_unknown_device_is_wrong_usage_of_the_command(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["model", "--device", "cdua"])
    assert ended.value.code == 2
    assert "did you mean cuda?" in capsys.readouterr().err


@pytest.mark.parametrize("number", ["7", "-1", "x"])
def test_a_device_of_a_number_that_does_not_exist_is_refused(number: str):
    with pytest.raises(DeviceError, match=f"'cpu:{number}' does not exist"):
        place(f"cpu:{number}")


@pytest.mark.skipif(importlib.util.find_spec("torch_npu") is not None, reason="torch_npu is installed")
def test_a_device_that_is_not_here_says_why_and_names_those_that_can_be_used():
    # A process that has started the simulation has given it the name, with or without the library.
    reason = r"torch_npu is not installed|a simulated one has its name in this process"
    with pytest.raises(DeviceError, match=rf"({reason})\.\n  try: use one of: .*cpu") as caught:
        load("model", LoadOptions(device="npu"))
    assert "simulated-npu" in caught.value.remedy


def test_a_device_that_shares_its_type_with_another_is_known_by_its_tensors_once_started():
    placement = place("simulated-npu")
    assert device_of_type(placement.torch_device.type) is placement.kind
    assert str(placement) == "simulated-npu (simulated on the CPU)"
    assert "simulated one" in str(device_named("npu").why_not())


def test_memory_is_reported_in_bytes():
    memory = place("cpu").memory()
    assert 0 < memory.free_bytes <= memory.total_bytes
    assert memory.peak_bytes is None or 0 < memory.peak_bytes < memory.total_bytes


ASCEND, NVIDIA, UNLIMITED = (LIMITS[name] for name in ("ascend", "nvidia", "unlimited"))


@pytest.mark.parametrize(
    ("limits", "grid", "reason"),
    [
        (ASCEND, (65535,), None),
        (ASCEND, (65536,), "the product 65536 is above ascend's limit of 65535"),
        (ASCEND, (4096, 16), "the product 65536 is above"),
        (ASCEND, (255, 257, 1), None),
        (ASCEND, (0, 4), "the grid is empty"),
        (NVIDIA, (2**31 - 1, 65535, 65535), None),
        (NVIDIA, (2**31,), "dimension 0 has 2147483648"),
        (NVIDIA, (1, 65536), "dimension 1 has 65536, above nvidia's limit of 65535"),
        (NVIDIA, (0,), None),
        (UNLIMITED, (1 << 40, 1 << 40), None),
        (LaunchLimits("tiny", max_grid_product=6, max_grid=(3, 3)), (4, 1), "dimension 0 has 4"),
    ],
)
def test_a_grid_is_judged_by_the_limits_alone(limits: LaunchLimits, grid: tuple[int, ...], reason: str | None):
    found = why_grid_is_refused(limits, grid)
    assert (found is None) if reason is None else reason in str(found)


def test_kernels_are_taken_from_the_first_kind_that_has_them():
    # Only found, not imported: importing it now would decorate it for a compiler that may not be here.
    assert choice.choose("rms_norm", ("npu", "triton")).kind == "triton"
    assert kernel("int8_linear", ("npu", "triton")).__module__ == "backends.native.kernels.npu.int8_linear"
    assert kernel("causal_attention", ("npu",)) is kernel("causal_attention", REFERENCE)
    assert alternative("causal_attention", ("npu",)) is None


def test_kinds_that_a_device_prefers_but_cannot_run_here_are_left_out():
    assert kinds_on("cpu", ("npu", "unheard of")) == (REFERENCE,)
    assert kinds_on("cpu", ("npu",), wanted=REFERENCE) == (REFERENCE,)
    with pytest.raises(KernelError, match="--kernels npu: its operators run on NPUs, not on cpu"):
        kinds_on("cpu", (), wanted="npu")


def test_a_checkpoint_in_a_dtype_that_the_device_lacks_is_refused_before_its_tensors_are_opened(tmp_path, as_fp8):
    folder = config_only(tmp_path, **as_fp8(qwen3_next.tiny_config()))
    with pytest.raises(KernelError) as caught:
        load(folder, LoadOptions(device="simulated-npu"))
    assert caught.value.what == (
        "quant_method 'fp8' stores float8_e4m3fn, which the device simulated-npu (simulated on the CPU) does not have."
    )
    assert "use another device (cpu, cuda, null)" in caught.value.remedy
    assert devices_with({torch.float8_e4m3fn}) == ["cpu", "cuda", "null"]


def test_int8_products_in_a_dtype_that_the_device_does_not_quantize_are_refused_before_the_load(tmp_path):
    folder = config_only(tmp_path, quantization_config=W8A8, dtype="float32")
    with pytest.raises(KernelError, match=r"takes inputs in bfloat16, float16, not in float32\.\n  try: pass --dtype"):
        load(folder, LoadOptions(device="simulated-npu"))


def test_a_device_without_values_loads_shapes_and_generates_nothing(small_config, tmp_path):
    folder = write_checkpoint(
        tmp_path, small_config | {"quantization_config": W8A8}, seed=0, max_file_bytes=MAX_FILE_BYTES
    )
    loaded = load(folder, LoadOptions(device="null"))
    assert {parameter.device.type for parameter in loaded.model(0).parameters()} == {"meta"}
    assert loaded.reports[0].never_filled == ()
    assert loaded.place.memory().total_bytes == 0
    with pytest.raises(KernelError, match="computes no values"):
        generate(loaded, [1], 1)


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_GPU, reason="torch finds no GPU")
@pytest.mark.parametrize("kind", [None, REFERENCE])
def test_a_gpu_loads_and_generates_what_the_cpu_does(tiny, kind):
    expected, found = load(tiny), load(tiny, LoadOptions(device="cuda", kernels=kind))
    ids = torch.arange(3, 40)
    positions = torch.arange(ids.numel())
    logits = found.model(0)(ids.to(found.device), positions.to(found.device), None)
    assert logits.is_cuda
    torch.testing.assert_close(logits.cpu(), expected.model(0)(ids, positions, None), rtol=1e-3, atol=1e-3)
    assert generate(found, [5, 6, 7], 4) == generate(expected, [5, 6, 7], 4)
    assert found.place.memory().peak_bytes
