"""Every stored format alike: within its bound of float64, and the same on 1, 2 and 4 ranks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from backends.native.errors import ShapeError
from backends.native.layers.build import Build
from backends.native.layers.gated_delta_net import load_packed
from backends.native.layers.linear import MergedColumnParallelLinear, QKVParallelLinear, RowParallelLinear
from backends.native.layers.moe import FusedMoE
from backends.native.layers.parameter import AttributeParameter, ModelParameter, replace_weight_loader
from backends.native.parallel.groups import all_reduce
from backends.native.parallel.lockstep import run_ranks
from backends.native.quantization.awq import AWQWeight
from backends.native.quantization.formats.float8 import Float8
from backends.native.quantization.formats.float8_blocks import Float8Blocks
from backends.native.quantization.formats.int8 import Int8
from backends.native.quantization.formats.int_groups import PackedInts
from backends.native.quantization.formats.microscaling import Microscaling
from backends.native.quantization.formats.nvfp4 import DIVIDED, MULTIPLIED, Nvfp4
from backends.native.quantization.fp8 import Fp8Config
from backends.native.quantization.gptq import GPTQWeight
from backends.native.quantization.modelslim import W8A8Dynamic, W8A8Static
from backends.native.quantization.stored import SHARD, StoredWeight, WeightPart

HIDDEN, TOKENS = 256, 7
E4M3, INT8, NVFP4, MXFP4, NONE = "e4m3", "int8", "nvfp4", "mxfp4", "none"


@dataclass(frozen=True)
class Case:
    stored: StoredWeight
    inputs: str = NONE
    is_per_token: bool = False


CASES = {
    "float8 block": Case(Float8Blocks((32, 32))),
    "float8 tensor static": Case(Float8("tensor", "static"), E4M3),
    "float8 tensor dynamic": Case(Float8("tensor", "dynamic"), E4M3, is_per_token=True),
    "float8 channel static": Case(Float8("channel", "static"), E4M3),
    "float8 channel dynamic": Case(Float8("channel", "dynamic"), E4M3, is_per_token=True),
    "float8 channel weight-only": Case(Float8("channel", "none")),
    "int8 channel dynamic": Case(Int8("channel", "dynamic"), INT8, is_per_token=True),
    "int8 tensor static": Case(Int8("tensor", "static"), INT8),
    "int8 channel static asymmetric": Case(Int8("channel", "static", is_input_symmetric=False), INT8),
    "int8 tensor weight-only": Case(Int8("tensor", "none")),
    "packed int4": Case(PackedInts(4, 32)),
    "packed int4 channel": Case(PackedInts(4, None)),
    "packed int4 zero points": Case(PackedInts(4, 32, is_symmetric=False)),
    "packed int4 g_idx": Case(PackedInts(4, 64, is_symmetric=False, has_g_idx=True)),
    "packed int8": Case(PackedInts(8, 32)),
    "nvfp4": Case(Nvfp4(MULTIPLIED), NVFP4),
    "nvfp4 divided": Case(Nvfp4(DIVIDED), NVFP4),
    "nvfp4 weight-only": Case(Nvfp4(MULTIPLIED, is_quantizing_inputs=False)),
    "mxfp4": Case(Microscaling()),
    "mxfp4 inputs": Case(Microscaling("weight_packed", is_quantizing_inputs=True), MXFP4),
    "awq": Case(AWQWeight(32)),
    "awq one group": Case(AWQWeight(None)),
    "gptq": Case(GPTQWeight(4, 32)),
    "gptq zero points": Case(GPTQWeight(4, 32, is_symmetric=False)),
    "gptq desc_act": Case(GPTQWeight(4, 64, is_symmetric=False, is_reordered=True)),
    "gptq one group": Case(GPTQWeight(8, None, zero_shift=0)),
    "gptq 8 bits desc_act": Case(GPTQWeight(8, 32, is_reordered=True)),
    "w8a8 dynamic": Case(W8A8Dynamic(), INT8, is_per_token=True),
    "w8a8 static": Case(W8A8Static(), INT8),
}


def build(stored: StoredWeight) -> Build:
    return Build(Fp8Config("any", (), None, {}, {}, stored), torch.float32)


def weights(*sizes: int, columns: int = HIDDEN, seed: int = 0) -> list[torch.Tensor]:
    """Projections of different sizes of values, so that a scale of a neighbour shows."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, columns, generator=generator) * 0.05 * 4**place for place, size in enumerate(sizes)]


def inputs(columns: int = HIDDEN) -> torch.Tensor:
    return torch.randn(TOKENS, columns, generator=torch.Generator().manual_seed(99))


def fill(layer: Any, disk: dict[str, torch.Tensor], stem: str = "", **shard: Any) -> None:
    for suffix, tensor in disk.items():
        param = layer.get_parameter(f"{stem}{suffix}")
        param.weight_loader(param, tensor, **shard)


def finished(layer: Any) -> Any:
    layer.quant_method.process_weights_after_loading(layer)
    return layer


def half_step(case: Case, x: torch.Tensor, disk: dict[str, torch.Tensor]) -> torch.Tensor:
    """How far quantizing moves each input at most."""
    if case.inputs == NONE:
        return torch.zeros_like(x)
    if case.inputs in (NVFP4, MXFP4):
        group = {NVFP4: 16, MXFP4: 32}[case.inputs]
        absmax = x.abs().unflatten(-1, (-1, group)).amax(-1).repeat_interleave(group, -1)
        # The largest step is 2 of at most 6 (NVFP4, whose scale is off by 1/16) or of 4 to 8 (MXFP4, cut at 6).
        return absmax * {NVFP4: 1.07 / 6, MXFP4: 1 / 4}[case.inputs]
    largest = 127 if case.inputs == INT8 else 448
    scale = x.abs().amax(-1, keepdim=True) / largest if case.is_per_token else disk["input_scale"]
    if case.inputs == INT8:
        return (scale / 2).expand_as(x)
    return torch.maximum(x.abs() * 2**-4, scale * 2**-10)


def error_and_bound(case: Case, x: torch.Tensor, y: torch.Tensor, disk: dict[str, torch.Tensor]) -> tuple[Any, Any]:
    weight = case.stored.dequantize(disk).double()
    error = (y.double() - x.double() @ weight.t()).abs()
    rounding = 1e-6 * x.double().abs() @ weight.abs().t()
    return error, half_step(case, x, disk).double() @ weight.abs().t() * 1.001 + rounding + 1e-9


@pytest.fixture(params=CASES.values(), ids=list(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def test_the_output_is_within_the_formats_bound_of_the_dequantized_reference(case):
    (weight,) = weights(64)
    disk, x = case.stored.quantize(weight), inputs()
    layer = MergedColumnParallelLinear(HIDDEN, [64], build=build(case.stored), prefix="proj")
    fill(layer, disk, shard_id=0)
    error, bound = error_and_bound(case, x, finished(layer)(x), disk)
    assert (error <= bound).all()
    if case.inputs != NONE:
        assert error.max() > bound.max() * 1e-4  # the inputs were quantized


def test_quantizing_stays_close_to_the_weight(case):
    (weight,) = weights(64)
    error = (case.stored.dequantize(case.stored.quantize(weight)) - weight).norm() / weight.norm()
    assert 0 < error < 0.2


def merged_outputs(case: Case, ranks: int) -> list[torch.Tensor]:
    """The outputs of each projection of a fused layer, put together from the ranks."""
    sizes, x = (256, 128, 128), inputs()

    def work(_rank: int) -> list[torch.Tensor]:
        layer = MergedColumnParallelLinear(HIDDEN, sizes, build=build(case.stored), prefix="fused")
        for position, weight in enumerate(weights(*sizes)):
            fill(layer, case.stored.quantize(weight), shard_id=position)
        return list(finished(layer)(x).split(layer.output_partition_sizes, dim=-1))

    return [torch.cat(parts, -1) for parts in zip(*run_ranks(ranks, work), strict=True)]


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_a_fused_layer_applies_to_each_projection_its_own_scales_on_any_number_of_ranks(case, ranks):
    x = inputs()
    for y, weight in zip(merged_outputs(case, ranks), weights(256, 128, 128), strict=True):
        error, bound = error_and_bound(case, x, y, case.stored.quantize(weight))
        assert (error <= bound).all()


def test_fused_layers_split_among_ranks_give_what_one_rank_gives(case):
    for one, four in zip(merged_outputs(case, 1), merged_outputs(case, 4), strict=True):
        torch.testing.assert_close(one, four, rtol=1e-5, atol=1e-5)


def qkv_outputs(case: Case, ranks: int) -> list[torch.Tensor]:
    def work(_rank: int) -> list[torch.Tensor]:
        layer = QKVParallelLinear(HIDDEN, 32, 8, 2, build=build(case.stored), prefix="qkv_proj")
        for shard_id, weight in zip("qkv", weights(256, 64, 64), strict=True):
            fill(layer, case.stored.quantize(weight), shard_id=shard_id)
        return list(finished(layer)(inputs()).split(layer.output_partition_sizes, dim=-1))

    return [torch.cat(parts, -1) for parts in zip(*run_ranks(ranks, work), strict=True)]


def test_attention_heads_keep_their_scales_where_ranks_share_a_key_head(case):
    query, key, value = qkv_outputs(case, 1)
    many = qkv_outputs(case, 4)
    twice = [part.unflatten(-1, (2, 1, 32)).expand(-1, 2, 2, 32).flatten(1) for part in (key, value)]
    for one, four in zip((query, *twice), many, strict=True):
        torch.testing.assert_close(one, four, rtol=1e-5, atol=1e-5)


def row_output(case: Case, ranks: int) -> torch.Tensor:
    (weight,), x = weights(64, columns=512), inputs(512)

    def work(rank: int) -> torch.Tensor:
        layer = RowParallelLinear(512, 64, build=build(case.stored), prefix="o_proj")
        fill(layer, case.stored.quantize(weight))
        size = 512 // ranks
        return finished(layer)(x[:, rank * size : (rank + 1) * size])

    return run_ranks(ranks, work)[0]


@pytest.mark.parametrize("ranks", [2, 4])
def test_a_layer_split_by_its_input_sums_to_what_one_rank_gives(case, ranks):
    y, (weight,), x = row_output(case, ranks), weights(64, columns=512), inputs(512)
    # A rank's tokens have their own absmax, which only makes their steps finer.
    error, bound = error_and_bound(case, x, y, case.stored.quantize(weight))
    assert (error <= bound).all()
    if not case.is_per_token:
        torch.testing.assert_close(y, row_output(case, 1), rtol=1e-5, atol=1e-5)


def expert_weights() -> list[dict[str, torch.Tensor]]:
    out = []
    for expert in range(3):
        gate, up = weights(128, 128, seed=expert)
        out.append({"w1": gate, "w3": up / 4, "w2": weights(HIDDEN, columns=128, seed=50 + expert)[0]})
    return out


def experts_output(case: Case, ranks: int) -> torch.Tensor:
    def work(_rank: int) -> torch.Tensor:
        layer = FusedMoE(3, 2, HIDDEN, 128, renormalize=True, build=build(case.stored), prefix="experts")
        for expert_id, shards in enumerate(expert_weights()):
            for shard_id, weight in shards.items():
                stem = "w2_" if shard_id == "w2" else "w13_"
                fill(layer, case.stored.quantize(weight), stem, shard_id=shard_id, expert_id=expert_id)
        finished(layer)
        return all_reduce(layer.quant_method.apply(layer, inputs(), topk_weights=chosen()[0], topk_ids=chosen()[1]))

    return run_ranks(ranks, work)[0]


def chosen() -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.tensor([[token % 3, (token + 1) % 3] for token in range(TOKENS)])
    return torch.tensor([[0.75, 0.25]]).expand(TOKENS, 2), ids


def experts_reference(case: Case) -> torch.Tensor:
    x, out = inputs().double(), torch.zeros(TOKENS, HIDDEN, dtype=torch.float64)
    for token in range(TOKENS):
        for share, expert_id in zip(*(values[token] for values in chosen()), strict=True):
            shards = expert_weights()[int(expert_id)]
            gate, up, down = (case.stored.dequantize(case.stored.quantize(w)).double() for w in shards.values())
            hidden = torch.nn.functional.silu(gate @ x[token]) * (up @ x[token])
            out[token] += share * (down @ hidden)
    return out


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_experts_equal_their_dequantized_reference_on_any_number_of_ranks(case, ranks):
    y, expected = experts_output(case, ranks).double(), experts_reference(case)
    tolerance = {NONE: 1e-6, INT8: 0.06, E4M3: 0.06, NVFP4: 0.25, MXFP4: 0.3}[case.inputs]
    assert (y - expected).norm() / expected.norm() < tolerance


@pytest.mark.parametrize("shape", [(), (1,)], ids=["[]", "[1]"])
@pytest.mark.parametrize("shard_id", [0, (0, 1, 2), None], ids=["int", "tuple", "all"])
def test_a_scale_of_one_element_goes_to_every_logical_shard_it_stands_for(shape, shard_id):
    layer = MergedColumnParallelLinear(
        64, [64, 32, 32, 64], build=build(Float8("tensor", "static")), prefix="in_proj_qkvz"
    )
    for param in (layer.weight_scale, layer.input_scale):
        param.data.fill_(-1)
        param.weight_loader(param, torch.full(shape, 0.5), shard_id)
        filled = {0: [0], (0, 1, 2): [0, 1, 2], None: [0, 1, 2, 3]}[shard_id]
        assert param.tolist() == [0.5 if position in filled else -1 for position in range(4)]


def test_a_tuple_of_shards_splits_the_weight_and_broadcasts_the_scale():
    stored = Float8("tensor", "dynamic")
    qkv, (z,) = torch.cat(weights(64, 32, 32)), weights(64, seed=1)

    def work(_rank):
        layer = MergedColumnParallelLinear(HIDDEN, [64, 32, 32, 64], build=build(stored), prefix="in_proj_qkvz")
        fill(layer, stored.quantize(qkv), shard_id=(0, 1, 2))
        fill(layer, stored.quantize(z), shard_id=3)
        return list(finished(layer)(inputs()).split(layer.output_partition_sizes, dim=-1))

    parts = [torch.cat(outputs, -1) for outputs in zip(*run_ranks(2, work), strict=True)]
    case = CASES["float8 tensor dynamic"]
    for y, disk in ((torch.cat(parts[:3], -1), stored.quantize(qkv)), (parts[3], stored.quantize(z))):
        error, bound = error_and_bound(case, inputs(), y, disk)
        assert (error <= bound).all()


def test_scales_of_several_elements_are_not_broadcast():
    layer = MergedColumnParallelLinear(64, [64, 64, 64], build=build(Float8("tensor", "dynamic")), prefix="fused")
    message = r"fused.weight_scale is filled from 3 elements of dimension 0, the tensor on disk is \[2\]"
    with pytest.raises(ShapeError, match=message):
        layer.weight_scale.weight_loader(layer.weight_scale, torch.ones(2), (0, 1, 2))


def test_one_scale_for_each_shard_of_a_whole_tensor_is_taken_apart():
    layer = MergedColumnParallelLinear(64, [64, 64, 64], build=build(Float8("tensor", "dynamic")), prefix="fused")
    layer.weight_scale.weight_loader(layer.weight_scale, torch.tensor([1.0, 2.0, 3.0]))
    assert layer.weight_scale.tolist() == [1, 2, 3]


def test_equal_scales_are_merged_after_loading_and_different_ones_are_not():
    for second, count in ((0.5, 1), (0.25, 2)):
        layer = MergedColumnParallelLinear(64, [64, 64], build=build(Float8("tensor", "dynamic")), prefix="fused")
        for shard_id, scale in enumerate((0.5, second)):
            layer.weight_scale.weight_loader(layer.weight_scale, torch.tensor(scale), shard_id)
        assert finished(layer).weight_scale.shape == (count,)


@pytest.mark.parametrize("ranks", [2, 4])
def test_every_parameter_of_a_packed_projection_takes_the_contiguous_slice_of_its_rank(case, ranks):
    disk = case.stored.quantize(torch.cat(weights(128, 128, 256)))

    def work(_rank):
        layer = MergedColumnParallelLinear(HIDDEN, [128, 128, 256], build=build(case.stored), prefix="in_proj_qkvz")
        load_packed(layer)
        fill(layer, disk)
        return dict(layer.named_parameters()), {spec.suffix: spec for spec in case.stored.tensors(part_of(layer))}

    parts = run_ranks(ranks, work)
    for suffix, tensor in disk.items():
        dims = parts[0][1][suffix].dims
        for rank, (held, _) in enumerate(parts):
            if SHARD in dims:
                expected = tensor.reshape(held[suffix].shape[1:]).expand_as(held[suffix])
            else:
                dim = dims.index("output")
                size = tensor.shape[dim] // ranks
                expected = tensor.narrow(dim, rank * size, size)
            assert torch.equal(held[suffix].double(), expected.double()), (suffix, rank)


def part_of(layer):
    return WeightPart("x", HIDDEN, HIDDEN, sum(layer.output_sizes), layer.output_partition_sizes, torch.float32)


@pytest.mark.parametrize("kind", [ModelParameter, AttributeParameter])
def test_the_loader_of_a_parameter_of_either_kind_can_be_replaced(kind):
    def first(*_): ...

    def second(*_): ...

    param = kind(torch.empty(1), full_name="scale", weight_loader=first)
    assert param.weight_loader is first
    replace_weight_loader(param, second)
    assert param.weight_loader is second


def test_the_loader_of_a_model_parameter_is_read_only_and_that_of_the_other_kind_an_attribute():
    def loader(*_): ...

    with pytest.raises(AttributeError):
        ModelParameter(torch.empty(1), full_name="scale", weight_loader=loader).weight_loader = loader
    AttributeParameter(torch.empty(1), full_name="scale", weight_loader=loader).weight_loader = loader
