"""Kernels for NPUs on the simulated one, against the reference on the CPU, and prefills beyond the grid's limit."""

from __future__ import annotations

import dataclasses
import importlib

import pytest
import torch

from backends.devices import placement, simulated_npu
from backends.devices.errors import GridError
from backends.devices.limits import LIMITS
from backends.native.checkpoint.synthesize import write_checkpoint
from backends.native.errors import KernelError
from backends.native.kernels.choice import REFERENCE, kernel
from backends.native.loader import LoadOptions, load
from backends.native.models import qwen3_next

SPLIT = "fused_qkvzba_split_reshape_cat"
HALVES = [torch.float16, torch.bfloat16]
ROUNDING = {torch.float16: 2**-10, torch.bfloat16: 2**-8}
HAS_GPU = torch.cuda.is_available()


@pytest.fixture(autouse=True, scope="module")
def device():
    return placement.place("simulated-npu")


def moved(arguments):
    return [x.to("npu") if isinstance(x, torch.Tensor) else x for x in arguments]


def results(op, *arguments):
    """The kernel's result, from the device, and the reference's, both in float32."""
    found, expected = kernel(op, "npu")(*moved(arguments)), kernel(op, REFERENCE)(*arguments)
    assert found.device.type == "npu"
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    return found.cpu().float(), expected.float()


def weight(rows, columns, *stack, seed=0):
    generator = torch.Generator().manual_seed(seed)
    quantized = torch.randint(-127, 128, (*stack, rows, columns), generator=generator, dtype=torch.int8)
    return quantized, torch.rand(*stack, rows, 1, generator=generator) / 500


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize(
    ("inputs", "is_laid_out"),
    # A weight that is summed over, as for a zero point, stays in rows.
    [("per token", False), ("per token", True), ("scale", False), ("scale", True), ("scale and zero point", False)],
)
def test_int8_linear_equals_the_reference(dtype, is_laid_out, has_bias, inputs):
    quantized, scale = weight(24, 40)
    x, bias = torch.randn(5, 40).to(dtype), torch.randn(24).to(dtype) if has_bias else None
    given = None if inputs == "per token" else torch.tensor(0.02)
    zero = torch.tensor(3, dtype=torch.int8) if inputs.endswith("point") else None
    expected = kernel("int8_linear", REFERENCE)(x, quantized, scale, None, given, zero, True, bias).float()
    held = quantized.to("npu")
    held = kernel("int8_weight_layout", "npu")(held) if is_laid_out else held
    found = kernel("int8_linear", "npu")(x.to("npu"), held, *moved((scale, None, given, zero, True, bias)))
    torch.testing.assert_close(found.cpu().float(), expected, rtol=2 * ROUNDING[dtype], atol=4 * ROUNDING[dtype])


@pytest.mark.parametrize("dtype", HALVES)
def test_int8_weights_alone_equal_the_reference(dtype):
    quantized, scale = weight(24, 40)
    found, expected = results(
        "int8_linear", torch.randn(5, 40).to(dtype), quantized, scale, None, None, None, False, None
    )
    # The operator takes its scales in the dtype of the input.
    torch.testing.assert_close(found, expected, rtol=4 * ROUNDING[dtype], atol=8 * ROUNDING[dtype])


@pytest.mark.parametrize("dtype", HALVES)
def test_int8_products_with_an_integer_bias_equal_the_reference(dtype):
    quantized, scale = weight(24, 40)
    correction = torch.randint(-9999, 9999, (24,), dtype=torch.int32)
    offset = torch.tensor(5.0)
    found, expected = results(
        "int8_deq_linear", torch.randn(5, 40).to(dtype), quantized, torch.tensor(0.02), offset, correction,
        scale.flatten() * 0.02,
    )  # fmt: skip
    torch.testing.assert_close(found, expected, rtol=2 * ROUNDING[dtype], atol=ROUNDING[dtype])


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("tokens", [1, 7])
def test_int8_experts_equal_the_reference(dtype, tokens):
    (w13, w13_scale), (w2, w2_scale) = weight(32, 40, 4), weight(40, 16, 4, seed=1)
    chosen = torch.stack([torch.randperm(3)[:2] for _ in range(tokens)])  # nobody chooses the last expert
    found, expected = results(
        "int8_moe", torch.randn(tokens, 40).to(dtype), w13, w13_scale, w2, w2_scale,
        torch.rand(tokens, 2).to(dtype), chosen,
    )  # fmt: skip
    # Two scales rounded to the output's dtype, and codes of the second product that fall on the other side of a half.
    assert (found - expected).abs().max() <= 6 * ROUNDING[dtype] * expected.abs().max()


@pytest.mark.parametrize("renormalize", [False, True])
def test_routing_equals_the_reference(renormalize):
    logits = torch.randn(9, 16).bfloat16()
    found = kernel("topk_softmax", "npu")(logits.to("npu"), 4, renormalize)
    expected = kernel("topk_softmax", REFERENCE)(logits, 4, renormalize)
    assert torch.equal(found[1].cpu(), expected[1])
    torch.testing.assert_close(found[0].cpu(), expected[0])


def test_the_gated_activation_equals_the_reference():
    found, expected = results("silu_and_mul", torch.randn(5, 32).bfloat16())
    torch.testing.assert_close(found, expected, rtol=2**-7, atol=1e-3)


def test_what_the_operators_cannot_do_is_refused_by_name():
    quantized, scale = weight(8, 16)
    arguments = moved((quantized, scale, torch.ones(8, 1), None, None, True, None))
    with pytest.raises(KernelError, match="offsets that are not zero, expected symmetric weights"):
        kernel("int8_linear", "npu")(torch.ones(2, 16, device="npu", dtype=torch.bfloat16), *arguments)
    with pytest.raises(KernelError, match=r"the input is torch.float32, expected .*\n  try: pass --dtype bfloat16"):
        kernel("int8_linear", "npu")(torch.ones(2, 16, device="npu"), *arguments)


def packed(tokens, k_heads=16, v_heads=32, k_dim=4, v_dim=4):
    width = 2 * k_heads * k_dim + 2 * v_heads * v_dim
    generator = torch.Generator().manual_seed(0)
    qkvz, ba = (torch.randn(tokens, size, generator=generator) for size in (width, 2 * v_heads))
    return qkvz, ba, k_heads, v_heads, k_dim, v_dim


@pytest.fixture
def interpreted(monkeypatch):
    """The splitting kernel, decorated while the interpreter is on, as it must be where nothing compiles it."""
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    importlib.reload(importlib.import_module(f"backends.native.kernels.triton.{SPLIT}"))


def test_a_prefill_beyond_the_limit_works_with_the_npu_kernel_and_fails_by_name_with_the_plain_one(
    interpreted, monkeypatch
):
    monkeypatch.delenv("TRITON_INTERPRET")
    arguments = packed(4096)
    found = kernel(SPLIT, "npu")(*moved(arguments))
    for part, expected in zip(found, kernel(SPLIT, REFERENCE)(*arguments), strict=True):
        assert torch.equal(part.cpu(), expected)
    with pytest.raises(GridError) as caught:
        kernel(SPLIT, "triton")(*moved(arguments))
    assert caught.value.what == (
        "kernel split_kernel on npu:0 (simulated on the CPU): its grid is (4096, 16), and the product 65536 is above "
        "ascend's limit of 65535."
    )
    assert "use the device's own kernels (npu)" in caught.value.remedy


@pytest.fixture
def limited(device, interpreted, monkeypatch):
    """The device with a limit so low that the interpreter reaches it in a moment."""
    limits = dataclasses.replace(LIMITS["ascend"], max_grid_product=48)
    patched = dataclasses.replace(device.kind, limits=limits)
    monkeypatch.setattr(simulated_npu, "DEVICE", patched)
    monkeypatch.setitem(placement._started, "npu", patched)


@pytest.mark.skipif(HAS_GPU, reason="interpreted only where there is no GPU")
@pytest.mark.parametrize("tokens", [2, 3, 4, 7])
def test_where_triton_runs_the_npu_kernel_launches_in_parts_within_the_limit(limited, monkeypatch, tokens):
    launched = []
    module = "backends.native.kernels.launch.require_grid"
    monkeypatch.setattr(module, lambda name, grid, x: launched.append(grid))
    arguments = packed(tokens)
    found = kernel(SPLIT, "npu")(*moved(arguments))
    for part, expected in zip(found, kernel(SPLIT, REFERENCE)(*arguments), strict=True):
        assert torch.equal(part.cpu(), expected)
    assert launched == [(min(3, tokens - start), 16) for start in range(0, tokens, 3)]


@pytest.mark.skipif(HAS_GPU, reason="interpreted only where there is no GPU")
def test_a_model_prefills_more_tokens_than_the_plain_kernels_may_launch(limited, tmp_path):
    config = qwen3_next.tiny_config() | {"num_hidden_layers": 1, "vocab_size": 100, "dtype": "bfloat16"}
    config |= {"quantization_config": {"quant_method": "modelslim", "model_quant_type": "W8A8_DYNAMIC"}}
    folder = write_checkpoint(tmp_path, config, seed=0, max_file_bytes=16 << 20)
    ids = torch.arange(13, device="npu")
    own = load(folder, LoadOptions(device="simulated-npu"))
    assert own.model(0)(ids, ids, None).shape == (13, 100)
    plain = load(folder, LoadOptions(device="simulated-npu", kernels="triton"))
    with pytest.raises(GridError, match=r"kernel split_kernel on npu:0 \(simulated.*52 is above ascend's limit of 48"):
        plain.model(0)(ids, ids, None)
