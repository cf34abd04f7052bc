"""FLOPs and bytes from shapes, against torch's own counter and against hands."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from inspectors.probe.tensors import brief
from sessions.launches import Launch
from workbench.profile.rows import row_of_launches
from workbench.profile.work import described, work_of


def launch(name, shapes=(), outputs=(), strides=(), launcher="aten", ns=1000, device_ns=-1):
    return Launch(
        0, 1, 0, "prefill", "", "", name, launcher, tuple(shapes), tuple(outputs), tuple(strides), ns, device_ns
    )


def strides_of(tensor):
    return f"[{','.join(map(str, tensor.stride()))}]"


class Launches(TorchDispatchMode):
    """What the kernels inspector would tell of each operator."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        given = [one for one in (*args, *(kwargs or {}).values()) if isinstance(one, torch.Tensor)]
        made = [one for one in (out if isinstance(out, (tuple, list)) else [out]) if isinstance(one, torch.Tensor)]
        name = f"{func.namespace}::{func.overloadpacket.__name__}"
        self.seen.append(launch(name, map(brief, given), map(brief, made), map(strides_of, given)))
        return out


CASES = {
    "mm": lambda r: r(5, 7) @ r(7, 3),
    "addmm": lambda r: torch.addmm(r(3), r(5, 7), r(7, 3)),
    "bmm": lambda r: torch.bmm(r(2, 5, 7), r(2, 7, 3)),
    "baddbmm": lambda r: torch.baddbmm(r(2, 5, 3), r(2, 5, 7), r(2, 7, 3)),
    "matmul of four dimensions": lambda r: r(2, 4, 5, 7) @ r(2, 4, 7, 3),
    "linear with a bias": lambda r: torch.nn.functional.linear(r(2, 5, 7), r(3, 7), r(3)),
    "conv1d by channel": lambda r: torch.conv1d(r(2, 8, 20), r(8, 1, 4), groups=8),
    "conv2d": lambda r: torch.conv2d(r(2, 3, 9, 9), r(4, 3, 3, 3), padding=1),
    "einsum": lambda r: torch.einsum("bij,bjk->bik", r(2, 3, 4), r(2, 4, 5)),
    "addmm onto a matrix": lambda r: torch.addmm(r(5, 3), r(5, 7), r(7, 3)),
}


@pytest.mark.parametrize("case", CASES)
def test_products_are_those_that_torch_counts(case):
    counter, seen = FlopCounterMode(display=False), Launches()
    with torch.no_grad(), counter:
        CASES[case](torch.rand)
    with torch.no_grad(), seen:
        CASES[case](torch.rand)
    works = [work_of(one) for one in seen.seen]
    assert all(work.flops is not None for work in works)
    assert sum(work.flops for work in works) == counter.get_total_flops() > 0


def test_attention_is_what_torch_counts_for_these_shapes():
    query, key, value = (2, 4, 6, 8), (2, 4, 9, 8), (2, 4, 9, 5)
    seen = Launches()
    with torch.no_grad(), seen:
        torch.nn.functional.scaled_dot_product_attention(torch.rand(query), torch.rand(key), torch.rand(2, 4, 9, 8))
    (attention,) = [work for one in seen.seen if (work := work_of(one)).flops]
    assert attention.flops == sdpa_flop_count(query, key, (2, 4, 9, 8))
    described = [f"float32[{','.join(map(str, shape))}]" for shape in (query, key, value)]
    work = work_of(launch("aten::_scaled_dot_product_efficient_attention", described, ["float32[2,4,6,5]"]))
    assert work.flops == sdpa_flop_count(query, key, value)


def test_a_packed_weight_does_not_hide_the_inner_dimension_of_a_linear_layer():
    shapes = ("bfloat16[5,256]", "int32[32,512]", "float16[2,512]")
    work = work_of(launch("lib::awq_linear", shapes, ["bfloat16[5,512]"], launcher="custom"))
    assert work.flops == 2 * 5 * 512 * 256
    assert work.bytes == 5 * 256 * 2 + 32 * 512 * 4 + 2 * 512 * 2 + 5 * 512 * 2


def test_experts_count_the_chosen_ones_and_their_bytes_are_not_known():
    shapes = ["bfloat16[5,256]", "float8_e4m3fn[8,384,256]", "float8_e4m3fn[8,256,192]", "bfloat16[5,2]", "int64[5,2]"]
    work = work_of(launch("lib::fp8_moe", shapes, ["bfloat16[5,256]"], launcher="custom"))
    assert work.flops == 2 * 5 * 2 * (384 * 256 + 256 * 192)
    assert work.bytes is None
    packed = [shape.replace("[8,384,256]", "[8,384,32]") for shape in shapes]
    assert work_of(launch("lib::fp8_moe", packed, ["bfloat16[5,256]"], launcher="custom")).flops is None


@pytest.mark.parametrize(
    "name", ["lib::gated_delta_rule", "lib::mystery", "aten::_lstm_mps", "aten::_weight_int4pack_mm", "_k"]
)
def test_what_shapes_do_not_tell_is_not_known_rather_than_none(name):
    shapes = () if "int4" in name else ("float32[4,4]",)
    assert work_of(launch(name, shapes, ("float32[4,4]",), launcher="custom")).flops is None


def test_a_shape_that_cannot_be_read_gives_no_numbers():
    work = work_of(launch("aten::mm", ["float32[4,4", "float32[4,4]"], ["float32[4,4]"]))
    assert (work.flops, work.bytes) == (None, None)
    assert described("somewhat[3]") is None


@pytest.mark.parametrize(
    ("name", "shapes", "outputs", "strides", "expected"),
    [
        ("aten::view", ["float32[4,4]"], ["float32[16]"], (), 0),
        ("aten::add", ["float32[4,4]", "float32[4,4]"], ["float32[4,4]"], (), 3 * 64),
        ("aten::add", ["float32[4,4]", "float32[4,4]"], ["float32[4,4]"], ["[4,1]", "[0,1]"], 64 + 16 + 64),
        ("aten::copy_", ["bfloat16[8]", "float32[8]"], ["bfloat16[8]"], (), 32 + 16),
        ("aten::embedding", ["bfloat16[1000,8]", "int64[3]"], ["bfloat16[3,8]"], (), 2 * 48 + 24),
        ("aten::neg", ["bool[8]"], ["bool[8]"], (), 16),
    ],
)
def test_bytes_are_what_arguments_and_results_hold(name, shapes, outputs, strides, expected):
    assert work_of(launch(name, shapes, outputs, strides)).bytes == expected


def test_rates_leave_out_the_time_of_what_is_not_known():
    known = launch("aten::mm", ["float32[10,10]"] * 2, ["float32[10,10]"], ns=4000)
    unknown = launch("lib::mystery", ["float32[10,10]"], ["float32[10,10]"], launcher="custom", ns=90_000)
    row = row_of_launches("both", [known, unknown])
    assert (row.calls, row.ns, row.unknown_flops) == (2, 94_000, 1)
    assert row.flops_per_s == pytest.approx(2000 / 4e-6)


def test_the_time_of_a_device_goes_before_that_of_its_launch():
    row = row_of_launches("k", [launch("aten::mm", ["float32[10,10]"] * 2, ["float32[10,10]"], ns=9, device_ns=500)])
    assert row.ns == 500
