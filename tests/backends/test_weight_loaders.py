"""Which elements of a tensor on disk each rank's parameter holds; tensors encode their positions."""

from __future__ import annotations

import pytest
import torch

from backends.native.config import ModelConfig
from backends.native.errors import ShapeError
from backends.native.layers.build import Build
from backends.native.layers.gated_delta_net import CausalConv1d, load_packed
from backends.native.layers.linear import (
    MergedColumnParallelLinear,
    QKVParallelLinear,
    ReplicatedLinear,
    RowParallelLinear,
)
from backends.native.layers.moe import FusedMoE
from backends.native.layers.parameter import ModelParameter, default_weight_loader
from backends.native.layers.vocab import VocabParallelEmbedding
from backends.native.parallel.lockstep import run_ranks
from backends.native.registry import quantization_config

ROWS = {"q": 0, "k": 1000, "v": 2000}


def build(quantization=None):
    fields = {"architectures": ["Any"], "quantization_config": quantization}
    return Build(quantization_config(ModelConfig.from_fields(fields), {}, {}), torch.float32)


def fp8(block_n=128, block_k=128):
    return build({"quant_method": "fp8", "weight_block_size": [block_n, block_k]})


def rows(count, columns=2, first=0):
    """A tensor whose every element is its row number."""
    return (torch.arange(count, dtype=torch.float32) + first)[:, None].repeat(1, columns)


def on_ranks(size, make, *loads):
    """The first column of the weight on each rank after the loads."""

    def work(_rank):
        layer = make()
        layer.weight.data.fill_(-1)  # so that an element nothing was written to shows
        for arguments in loads:
            layer.weight.weight_loader(layer.weight, *arguments)
        return layer.weight.data[:, 0].tolist()

    return run_ranks(size, work)


def merged(sizes, **options):
    return lambda: MergedColumnParallelLinear(2, sizes, build=build(), prefix="merged", **options)


def test_a_merged_layer_takes_its_rows_of_each_projection():
    parts = on_ranks(2, merged([4, 8]), (rows(4), 0), (rows(8, first=100), 1))
    assert parts == [[0, 1, 100, 101, 102, 103], [2, 3, 104, 105, 106, 107]]


def test_a_tensor_of_all_projections_is_taken_apart_in_their_order():
    separately = on_ranks(2, merged([4, 8]), (rows(4), 0), (rows(8, first=4), 1))
    assert on_ranks(2, merged([4, 8]), (rows(12),)) == separately


def test_a_tuple_of_shard_ids_fills_those_projections():
    parts = on_ranks(2, merged([2, 4, 2]), (rows(6), (0, 1)), (rows(2, first=6), 2))
    assert parts == on_ranks(2, merged([2, 4, 2]), (rows(8),))


def test_a_packed_projection_is_one_contiguous_slice_and_not_a_slice_of_each_part():
    def make():
        layer = merged([4, 4])()
        load_packed(layer)
        return layer

    assert on_ranks(2, make, (rows(8),)) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert on_ranks(2, merged([4, 4]), (rows(8),)) == [[0, 1, 4, 5], [2, 3, 6, 7]]


def test_scales_of_a_packed_projection_have_the_loader_of_its_weight():
    layer = MergedColumnParallelLinear(256, [256, 256], build=fp8(), prefix="packed")
    load_packed(layer)
    loaders = {name: parameter.weight_loader for name, parameter in layer.named_parameters()}
    assert set(loaders) == {"weight", "weight_scale_inv"}
    assert len(set(loaders.values())) == 1


@pytest.mark.parametrize(
    ("ranks", "kv_heads", "keys_of_rank"),
    [(1, 2, [[0, 1]]), (2, 2, [[0], [1]]), (4, 2, [[0], [0], [1], [1]]), (4, 1, [[0], [0], [0], [0]])],
)
def test_key_and_value_heads_are_copied_to_neighbours_where_ranks_outnumber_them(ranks, kv_heads, keys_of_rank):
    def make():
        return QKVParallelLinear(2, 1, 4, kv_heads, build=build(), prefix="qkv_proj")

    parts = on_ranks(ranks, make, *[(rows(4 if s == "q" else kv_heads, first=first), s) for s, first in ROWS.items()])
    queries = 4 // ranks
    assert [part[:queries] for part in parts] == [list(range(r * queries, (r + 1) * queries)) for r in range(ranks)]
    for part, keys in zip(parts, keys_of_rank, strict=True):
        assert part[queries:] == [1000 + key for key in keys] + [2000 + key for key in keys]


def test_a_row_parallel_layer_takes_columns_and_a_whole_bias():
    def work(_rank):
        layer = RowParallelLinear(4, 3, build=build(), prefix="o_proj", bias=True)
        layer.weight.weight_loader(layer.weight, rows(4, 3).t())
        layer.bias.weight_loader(layer.bias, torch.arange(3.0))
        return layer.weight[0].tolist(), layer.bias.tolist()

    assert run_ranks(2, work) == [([0, 1], [0, 1, 2]), ([2, 3], [0, 1, 2])]


def test_the_bias_of_a_row_parallel_layer_is_added_once():
    def work(_rank):
        layer = RowParallelLinear(4, 3, build=build(), prefix="o_proj", bias=True)
        layer.weight.data.zero_()
        layer.bias.data.fill_(1)
        return layer(torch.zeros(1, 2)).tolist()

    assert run_ranks(2, work) == [[[1, 1, 1]], [[1, 1, 1]]]


def test_block_scales_are_split_by_blocks():
    def work(_rank):
        layer = MergedColumnParallelLinear(256, [256, 512], build=fp8(), prefix="gate_up_proj")
        scale = layer.weight_scale_inv
        scale.weight_loader(scale, rows(2), 0)
        scale.weight_loader(scale, rows(4, first=10), 1)
        return scale[:, 0].tolist()

    assert run_ranks(2, work) == [[0, 10, 11], [1, 12, 13]]


def test_a_last_partial_block_has_a_scale():
    layer = ReplicatedLinear(200, 130, build=fp8(), prefix="gate")
    assert layer.weight_scale_inv.shape == (2, 2)


def test_conv_channels_are_sliced_group_by_group():
    def work(_rank):
        conv = CausalConv1d((2, 2, 4), 1, build=build(), prefix="conv1d")
        conv.weight.weight_loader(conv.weight, torch.arange(8.0).view(8, 1, 1))
        return conv.weight.flatten().tolist()

    assert run_ranks(2, work) == [[0, 2, 4, 5], [1, 3, 6, 7]]


@pytest.mark.parametrize(("vocab_size", "ranks"), [(64, 1), (100, 2), (130, 3), (70, 4)])
def test_a_padded_vocabulary_holds_every_row_once_and_zeros_after_the_last(vocab_size, ranks):
    parts = on_ranks(
        ranks,
        lambda: VocabParallelEmbedding(vocab_size, 2, build=build(), prefix="embed"),
        (rows(vocab_size, first=1),),
    )
    flat = [row for part in parts for row in part]
    assert flat[:vocab_size] == list(range(1, vocab_size + 1))
    assert not any(flat[vocab_size:])
    assert len({len(part) for part in parts}) == 1


def test_experts_take_gate_rows_before_up_rows_and_columns_of_down():
    def work(_rank):
        experts = FusedMoE(2, 1, 3, 4, renormalize=True, build=build(), prefix="experts")
        w13, w2 = experts.w13_weight, experts.w2_weight
        for expert in range(2):
            first = 100 * expert
            w13.weight_loader(w13, rows(4, 3, first + 50), shard_id="w3", expert_id=expert)
            w13.weight_loader(w13, rows(4, 3, first), shard_id="w1", expert_id=expert)
            w2.weight_loader(w2, rows(4, 3, first).t(), shard_id="w2", expert_id=expert)
        return w13[:, :, 0].tolist(), w2[:, 0].tolist()

    assert run_ranks(2, work) == [
        ([[0, 1, 50, 51], [100, 101, 150, 151]], [[0, 1], [100, 101]]),
        ([[2, 3, 52, 53], [102, 103, 152, 153]], [[2, 3], [102, 103]]),
    ]


def test_a_one_element_tensor_fills_a_scalar():
    param = ModelParameter(torch.empty(()), full_name="scale", weight_loader=default_weight_loader)
    default_weight_loader(param, torch.tensor([3.0]))
    assert param.item() == 3


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (rows(5), r"merged.weight is filled from 4 elements of dimension 0, the tensor on disk is \[5, 2\]"),
        (rows(4, 3), r"merged.weight expects \[4, 2\] here, the tensor gives \[4, 3\]"),
        (torch.tensor(1.0), r"merged.weight is filled from 4 elements of dimension 0, the tensor on disk is \[\]"),
    ],
)
def test_a_tensor_of_another_shape_is_an_error_that_names_the_parameter(tensor, message):
    layer = merged([4])()
    with pytest.raises(ShapeError, match=message):
        layer.weight.weight_loader(layer.weight, tensor, 0)


def test_a_one_row_tensor_is_not_broadcast():
    with pytest.raises(ShapeError, match=r"gate.weight expects \[4, 2\] here, the tensor gives \[1, 2\]"):
        default_weight_loader(ReplicatedLinear(2, 4, build=build(), prefix="gate").weight, rows(1))


def test_an_expert_beyond_the_last_is_an_error():
    experts = FusedMoE(2, 1, 3, 4, renormalize=True, build=build(), prefix="experts")
    with pytest.raises(ShapeError, match=r"experts.w2_weight has 2 experts, the tensor is of expert 2"):
        experts.weight_loader(experts.w2_weight, rows(3, 4), shard_id="w2", expert_id=2)


def test_a_shard_the_layer_does_not_have_is_an_error():
    layer = QKVParallelLinear(2, 1, 2, 2, build=build(), prefix="qkv_proj")
    with pytest.raises(ShapeError, match=r"qkv_proj has the shards .*, not 'gate'"):
        layer.weight.weight_loader(layer.weight, rows(2), "gate")


def test_heads_that_do_not_divide_are_an_error_that_names_the_layer():
    with pytest.raises(ShapeError, match="merged output_size = 3 is not divisible by tensor parallel size 2"):
        run_ranks(2, lambda _: merged([4, 3])())
