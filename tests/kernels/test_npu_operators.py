"""The simulated NPU's tensors and operators: what torch_npu documents, computed by hand, and what it refuses."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn

from backends.devices.placement import place
from backends.devices.simulation.operators import SCHEMAS
from backends.native.layers.parameter import AttributeParameter, ModelParameter

FRACTAL_NZ, ND = 29, 2
NPU = torch.ops.npu


@pytest.fixture(autouse=True, scope="module")
def device():
    return place("simulated-npu").torch_device


def random_int8(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(-128, 128, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.int8)


def on_npu(*tensors: torch.Tensor) -> list[torch.Tensor]:
    return [x.to("npu") for x in tensors]


def test_a_view_writes_through_and_values_come_back():
    x = torch.zeros(3, 4, device="npu")
    x.narrow(0, 1, 1).fill_(7)
    x[2, :2].copy_(torch.tensor([5.0, 6.0]))
    assert x.cpu().tolist() == [[0, 0, 0, 0], [7, 7, 7, 7], [5, 6, 0, 0]]
    assert x.device.type == "npu"
    assert x[1, 2].item() == 7
    assert "simulated_npu" in repr(x)


def test_the_copy_on_the_cpu_shares_nothing():
    x = torch.zeros(2, device="npu")
    x.cpu().fill_(1)
    assert x.cpu().tolist() == [0, 0]


@pytest.mark.parametrize("kind", [ModelParameter, AttributeParameter])
def test_a_parameter_keeps_its_class_and_its_loader_on_the_device(kind):
    with torch.device("npu"):
        parameter = kind(torch.empty(4, 2), full_name="a.weight", weight_loader=print, output_dim=0)
    assert isinstance(parameter, kind)
    assert (parameter.full_name, parameter.weight_loader) == ("a.weight", print)
    parameter.data.select(0, 1).copy_(torch.ones(2))
    assert parameter[1].tolist() == [1, 1]
    layer = nn.Module()
    layer.register_parameter("weight", parameter)
    assert next(layer.parameters()) is parameter


def test_setting_the_data_of_a_tensor_changes_its_values():
    x = torch.zeros(2, device="npu")
    x.data = torch.ones(2, device="npu")
    assert x.tolist() == [1, 1]
    with pytest.raises(RuntimeError, match="simulated NPU: the data of a tensor on the NPU is set to one on cpu"):
        x.data = torch.ones(2)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_there_are_no_float8_tensors(dtype):
    with pytest.raises(RuntimeError, match=f"simulated NPU: there are no tensors of {dtype}"):
        torch.zeros(2, dtype=dtype).to("npu")


def test_devices_do_not_mix():
    with pytest.raises(RuntimeError, match="expected all tensors to be on the same device, found npu:0 and cpu"):
        torch.ones(2, device="npu") + torch.ones(2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.int32])
def test_matrices_are_multiplied_in_three_dtypes(dtype):
    x = torch.ones(2, 2, device="npu", dtype=dtype)
    with pytest.raises(RuntimeError, match=f"multiplies float16, bfloat16 and float32, found {dtype}"):
        torch.mm(x, x)


def test_no_part_of_a_tensor_in_blocks_is_taken_and_its_transposed_view_is_one():
    weight = random_int8(4, 32, 16)
    blocked = NPU.npu_format_cast(weight.to("npu"), FRACTAL_NZ)
    assert NPU.get_npu_format(blocked.transpose(1, 2)) == FRACTAL_NZ
    assert torch.equal(blocked.cpu(), weight)
    with pytest.raises(RuntimeError, match="of a tensor in FRACTAL_NZ"):
        blocked[0]
    assert torch.equal(NPU.npu_format_cast(blocked, ND)[0].cpu(), weight[0])
    with pytest.raises(RuntimeError, match="FRACTAL_NZ takes contiguous tensors"):
        NPU.npu_format_cast(weight.to("npu").transpose(1, 2), FRACTAL_NZ)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_tokens_are_quantized_by_their_largest_element(dtype):
    x = torch.tensor([[0.5, -2.0, 1.0], [0.0, 0.0, 0.0]], dtype=dtype)
    quantized, scale = NPU.npu_dynamic_quant(x.to("npu"))
    assert quantized.tolist() == [[32, -127, 64], [0, 0, 0]]
    torch.testing.assert_close(scale.cpu(), torch.tensor([2.0 / 127, 0.0]))
    with pytest.raises(RuntimeError, match="npu_dynamic_quant takes float16 and bfloat16, found"):
        NPU.npu_dynamic_quant(x.float().to("npu"))


@pytest.mark.parametrize(("div_mode", "scale"), [(True, 0.5), (False, 2.0)])
def test_inputs_are_quantized_by_a_given_scale_and_zero_point(div_mode, scale):
    x = torch.tensor([[0.25, -0.75, 1.0, 400.0]])
    scales, zeros = torch.full((4,), scale), torch.full((4,), 3.0 if not div_mode else 3)
    zeros = zeros.to(torch.int32) if div_mode else zeros
    quantized = NPU.npu_quantize(*on_npu(x, scales, zeros), torch.qint8, -1, div_mode)
    assert quantized.dtype == torch.int8
    assert quantized.tolist() == [[3, 1, 5, 127]]


def product_by_hand(x1, x2, scale, pertoken=None, bias=None):
    out = []
    for row in range(x1.shape[0]):
        for column in range(x2.shape[1]):
            total = int((x1[row].long() * x2[:, column].long()).sum())
            total += 0 if bias is None or bias.is_floating_point() else int(bias[column])
            value = total * float(scale[column]) * (1.0 if pertoken is None else float(pertoken[row]))
            out.append(value + (float(bias[column]) if bias is not None and bias.is_floating_point() else 0.0))
    return torch.tensor(out).view(x1.shape[0], x2.shape[1])


@pytest.mark.parametrize("is_blocked", [False, True])
@pytest.mark.parametrize("bias_dtype", [None, torch.int32, torch.float32])
def test_int8_matrices_are_multiplied_without_rounding_and_scaled(bias_dtype, is_blocked):
    x1, x2 = random_int8(3, 40), random_int8(40, 8, seed=1)
    scale, pertoken = torch.rand(8) / 1000, torch.rand(3)
    bias = None if bias_dtype is None else (torch.rand(8) * 50).to(bias_dtype)
    weight = x2.to("npu")
    found = NPU.npu_quant_matmul(
        x1.to("npu"),
        NPU.npu_format_cast(weight, FRACTAL_NZ) if is_blocked else weight,
        scale.to("npu"),
        pertoken_scale=pertoken.to("npu"),
        bias=None if bias is None else bias.to("npu"),
        output_dtype=torch.bfloat16,
    )
    torch.testing.assert_close(
        found.cpu().float(), product_by_hand(x1, x2, scale, pertoken, bias), rtol=2**-8, atol=1e-4
    )


def test_scales_of_a_float16_output_are_read_to_ten_bits():
    x1, x2 = random_int8(2, 16), random_int8(16, 4, seed=1)
    scale = torch.tensor([1.0 + 2**-10, 1.0 + 2**-11, 1.0, 0.3]) / 4096
    found = NPU.npu_quant_matmul(*on_npu(x1, x2, scale), output_dtype=torch.float16)
    packed = NPU.npu_trans_quant_param(scale.to("npu"))
    assert packed.dtype == torch.int64
    again = NPU.npu_quant_matmul(*on_npu(x1, x2), packed, output_dtype=torch.float16)
    assert torch.equal(found.cpu(), again.cpu())
    read = torch.tensor([1.0 + 2**-10, 1.0, 1.0, 0.2998046875]) / 4096
    torch.testing.assert_close(found.cpu().float(), product_by_hand(x1, x2, read), rtol=2**-10, atol=0)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"output_dtype": torch.float32}, "no output in torch.float32 with pertoken_scale"),
        ({"scale": torch.rand(8, 1)}, r"scale \[8, 1\] must be \[1\] or \[8\]"),
        ({"scale": torch.rand(8).bfloat16(), "output_dtype": torch.float16}, "scale is torch.bfloat16"),
        ({"pertoken_scale": torch.rand(2)}, r"pertoken_scale must be float32 \[3\]"),
        ({"bias": torch.rand(8).half()}, "bias is torch.float16"),
        ({"bias": torch.rand(7)}, r"bias \[7\] must be \[8\]"),
        ({"x2": random_int8(8, 40)}, "k dim of x1 and x2 need be same"),
        ({"x1": random_int8(3, 40).float()}, "expected int8"),
        ({"x2": random_int8(40, 16)[:, ::2]}, "must be contiguous or the transposed view"),
        ({"x1": random_int8(3, 65536), "x2": random_int8(65536, 8)}, "is above 65535"),
    ],
)
def test_products_outside_the_documented_table_are_refused(changed, message):
    given = {"x1": random_int8(3, 40), "x2": random_int8(40, 8), "scale": torch.rand(8)}
    given |= {"pertoken_scale": torch.rand(3), "output_dtype": torch.bfloat16} | changed
    moved = {name: value.to("npu") if isinstance(value, torch.Tensor) else value for name, value in given.items()}
    if not changed.get("x2", torch.empty(0)).is_contiguous():
        moved["x2"] = random_int8(40, 16).to("npu")[:, ::2]
    with pytest.raises(RuntimeError, match=f"simulated NPU: npu_quant_matmul: .*{message}"):
        NPU.npu_quant_matmul(**moved)


@pytest.mark.parametrize("kind", [0, 1])
def test_rows_are_multiplied_by_the_weight_of_their_group(kind):
    rows, weight = random_int8(6, 16), random_int8(3, 16, 4, seed=1)
    scale, pertoken = torch.rand(3, 4) / 100, torch.rand(6)
    groups = torch.tensor([2, 2, 6] if kind == 0 else [2, 0, 4])
    found = NPU.npu_grouped_matmul(
        [rows.to("npu")],
        [weight.to("npu")],
        scale=[scale.to("npu")],
        per_token_scale=[pertoken.to("npu")],
        group_list=groups.to("npu"),
        split_item=2,
        group_type=0,
        group_list_type=kind,
        output_dtype=torch.float16,
    )[0]
    by_hand = [
        product_by_hand(rows[i : i + 1], weight[g], scale[g], pertoken[i : i + 1])
        for i, g in enumerate([0, 0, 2, 2, 2, 2])
    ]
    torch.testing.assert_close(found.cpu().float(), torch.cat(by_hand), rtol=2**-10, atol=1e-4)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"group_list": [torch.tensor([3, 2, 6])]}, "must not decrease"),
        ({"group_list": [torch.tensor([2, 2, 7])]}, "group_list ends at 7, x has 6 rows"),
        ({"group_list": [torch.tensor([2, 6])]}, r"group_list must be int64 \[3\]"),
        ({"scale": torch.rand(3, 4)}, "scale must be torch.bfloat16"),
        ({"split_item": 0}, "is simulated for one x, one weight"),
    ],
)
def test_grouped_products_that_torch_npu_would_not_make_are_refused(changed, message):
    given = {"scale": torch.rand(3, 4).bfloat16(), "group_list": [torch.tensor([2, 2, 6])], "split_item": 2} | changed
    with pytest.raises(RuntimeError, match=f"simulated NPU: npu_grouped_matmul.*{message}"):
        NPU.npu_grouped_matmul(
            [random_int8(6, 16).to("npu")],
            [random_int8(3, 16, 4).to("npu")],
            scale=[given["scale"].to("npu")],
            per_token_scale=[torch.rand(6).to("npu")],
            group_list=given["group_list"][0].to("npu"),
            split_item=given["split_item"],
            group_type=0,
            group_list_type=0,
            output_dtype=torch.bfloat16,
        )


def test_routing_and_the_gated_activation_are_those_of_torch():
    logits, x = torch.randn(5, 8), torch.randn(3, 8)
    weights, ids, _ = NPU.npu_moe_gating_top_k(logits.to("npu"), 3)
    expected = logits.softmax(-1).sort(-1, descending=True)
    assert ids.dtype == torch.int32
    assert torch.equal(ids.cpu().long(), expected.indices[:, :3])
    torch.testing.assert_close(weights.cpu(), expected.values[:, :3])
    gate, up = x[:, :4], x[:, 4:]
    torch.testing.assert_close(NPU.npu_swiglu(x.to("npu")).cpu(), gate / (1 + (-gate).exp()) * up)


def test_weights_alone_are_dequantized_by_the_batch_product():
    x, weight, scale = torch.randn(3, 16).half(), random_int8(16, 4), (torch.rand(4) / 100).half()
    found = NPU.npu_weight_quant_batchmatmul(*on_npu(x, weight, scale))
    torch.testing.assert_close(found.cpu().float(), x.float() @ (weight.float() * scale.float()), rtol=2e-3, atol=1e-3)
    with pytest.raises(RuntimeError, match="npu_weight_quant_batchmatmul takes float16 and bfloat16"):
        NPU.npu_weight_quant_batchmatmul(*on_npu(x.float(), weight, scale))


def test_the_operators_exist_for_the_device_only():
    with pytest.raises(NotImplementedError, match="npu_dynamic_quant"):
        NPU.npu_dynamic_quant(torch.ones(2, 2))


@pytest.mark.skipif(importlib.util.find_spec("torch_npu") is None, reason="torch_npu is not installed")
def test_the_schemas_are_those_of_the_library_that_is_installed():
    spec = importlib.util.find_spec("torch_npu")
    folder = Path(spec.submodule_search_locations[0])
    held = b"".join(path.read_bytes() for path in (folder / "lib").glob("*.so"))
    assert [schema for schema in SCHEMAS if schema.encode() not in held] == []
