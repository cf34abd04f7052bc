"""Simulated routing, activation and grouped products of experts: torch_npu's arguments, dtypes and limits."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from backends.devices.simulation.errors import require
from backends.devices.simulation.layout import require_matrices, require_plain
from backends.devices.simulation.quantized import BF16, F16, F32, I8, I32, I64, dtype_of, scale_values
from backends.devices.simulation.tensor import SimulatedTensor

Tensors = Sequence[SimulatedTensor]
INNER_LIMIT = 65536
MAX_EXPERTS = 2048
# By output dtype and whether there is a scale per token, the dtype of the scale: documented for Atlas A2.
SCALES = {(I8, False): I64, (BF16, False): BF16, (F16, False): F32, (BF16, True): BF16, (F16, True): F32}
ALONG_M, ONE_OUTPUT = 0, (2, 3)
NAME = "npu_grouped_matmul"


def npu_grouped_matmul(
    x: Tensors,
    weight: Tensors,
    *,
    bias: Tensors | None = None,
    scale: Tensors | None = None,
    per_token_scale: Tensors | None = None,
    group_list: SimulatedTensor | None = None,
    split_item: int | None = 0,
    group_type: int | None = None,
    group_list_type: int | None = 0,
    output_dtype: int | None = None,
    **others: object,
) -> list[SimulatedTensor]:
    """One x [m, k] whose rows are grouped times one weight [groups, k, n] -> one [m, n].

    `group_list` int64 [groups] has the last row of each group (type 0) or its size (type 1). Of all the forms of
    torch_npu's operator this is the one that fused experts use.
    """
    require(not any(others.values()), f"{NAME} is simulated without {[k for k, v in others.items() if v]}")
    is_form = len(x) == len(weight) == 1 and group_type == ALONG_M and split_item in ONE_OUTPUT
    require(is_form and bias is None, f"{NAME} is simulated for one x, one weight, group_type 0, split_item 2 or 3")
    rows, stack = x[0], weight[0]
    _require_stack(rows, stack)
    ends = _ends(rows, stack, group_list, group_list_type)
    is_integer = rows.dtype == I8
    wanted = dtype_of(output_dtype, rows.dtype)
    if is_integer:
        _require_scales(rows, stack, scale, per_token_scale, wanted)
    out = torch.zeros(rows.shape[0], stack.shape[2], dtype=torch.float32, device="cpu")
    start = 0
    for group, end in enumerate(ends):
        wide = torch.float64 if is_integer else torch.float32
        part = (rows.host[start:end].to(wide) @ stack.host[group].to(wide)).float()
        if is_integer and scale is not None:
            part = part * scale_values(scale[0].host[group], is_read_as_fp19=scale[0].dtype == I64)
        out[start:end] = part
        start = end
    if per_token_scale is not None:
        out = out * per_token_scale[0].host.unsqueeze(-1)
    return [SimulatedTensor(out.to(wanted))]


def _require_stack(rows: SimulatedTensor, stack: SimulatedTensor) -> None:
    require_plain(NAME, x=rows)
    is_right = rows.dim() == len("mk") and stack.dim() == len("gkn") and rows.shape[1] == stack.shape[1]
    require(is_right, f"{NAME}: x {list(rows.shape)} and weight {list(stack.shape)}, expected [m, k] and [g, k, n]")
    require(rows.dtype == stack.dtype, f"{NAME}: x is {rows.dtype}, weight is {stack.dtype}")
    require(rows.dtype in (I8, F16, BF16, F32), f"{NAME} takes int8 and floats, found {rows.dtype}")
    require(
        max(rows.shape[-1], stack.shape[-1]) < INNER_LIMIT,
        f"{NAME}: the last dimension of x {list(rows.shape)} or weight {list(stack.shape)} is {INNER_LIMIT} or more",
    )
    require_matrices(stack, "weight", NAME)


def _ends(
    rows: SimulatedTensor, stack: SimulatedTensor, group_list: SimulatedTensor | None, kind: int | None
) -> list[int]:
    is_right = group_list is not None and group_list.dtype == I64 and group_list.shape == stack.shape[:1]
    require(is_right and group_list is not None, f"{NAME}: group_list must be int64 [{stack.shape[0]}]")
    given = group_list.host if group_list is not None else torch.empty(0)
    ends = given.tolist() if kind == 0 else given.cumsum(0).tolist()
    require(ends == sorted(ends) and ends[0] >= 0, f"{NAME}: group_list {given.tolist()} must not decrease")
    require(ends[-1] <= rows.shape[0], f"{NAME}: group_list ends at {ends[-1]}, x has {rows.shape[0]} rows")
    return [int(end) for end in ends]


def _require_scales(
    rows: SimulatedTensor,
    stack: SimulatedTensor,
    scale: Tensors | None,
    per_token_scale: Tensors | None,
    wanted: torch.dtype,
) -> None:
    key = (wanted, per_token_scale is not None)
    require(key in SCALES, f"{NAME}: no output in {wanted} {'with' if key[1] else 'without'} per_token_scale")
    shape = (stack.shape[0], stack.shape[2])
    is_right = scale is not None and scale[0].dtype == SCALES[key] and scale[0].shape == shape
    require(is_right, f"{NAME}: scale must be {SCALES[key]} {list(shape)} for an output in {wanted}")
    if per_token_scale is not None:
        tokens = per_token_scale[0]
        is_right = tokens.dtype == F32 and tokens.shape == rows.shape[:1]
        require(is_right, f"{NAME}: per_token_scale must be float32 [{rows.shape[0]}]")


def npu_moe_gating_top_k(
    x: SimulatedTensor,
    k: int,
    *,
    norm_type: int = 0,
    out_flag: bool = False,
    routed_scaling_factor: float = 1.0,
    **others: object,
) -> tuple[SimulatedTensor, SimulatedTensor, SimulatedTensor]:
    """Weights in the dtype of `x` and int32 ids, both [tokens, k], and all norms float32; softmax, one group."""
    plain = {"k_group": 1, "group_count": 1, "group_select_mode": 0, "renorm": 0, "eps": 1e-20}
    changed = [name for name, value in others.items() if value not in (None, plain.get(name))]
    require(not changed and norm_type == 0, f"npu_moe_gating_top_k is simulated for softmax without {changed}")
    require(x.dim() == len("te"), "the x shape support only 2d)")
    require(x.dtype in (F16, BF16, F32), f"npu_moe_gating_top_k takes floats, found {x.dtype}")
    require(x.shape[1] <= MAX_EXPERTS, f"npu_moe_gating_top_k: {x.shape[1]} experts, at most {MAX_EXPERTS}")
    require(1 <= k <= x.shape[1], f"npu_moe_gating_top_k: k is {k}, there are {x.shape[1]} experts")
    norms = x.host.float().softmax(-1)
    weights, ids = norms.topk(k, dim=-1)
    held = norms if out_flag else torch.empty_like(norms)
    scaled = (weights * routed_scaling_factor).to(x.dtype)
    return SimulatedTensor(scaled), SimulatedTensor(ids.to(I32)), SimulatedTensor(held)


def npu_swiglu(input: SimulatedTensor, dim: int = -1) -> SimulatedTensor:  # noqa: A002 - the schema's name
    """`silu(first half) * second half` along `dim`."""
    require(input.dtype in (F16, BF16, F32), f"npu_swiglu takes floats, found {input.dtype}")
    require(input.shape[dim] % 2 == 0, f"npu_swiglu: dimension {dim} of {list(input.shape)} is odd")
    gate, up = input.host.float().chunk(2, dim)
    return SimulatedTensor((torch.nn.functional.silu(gate) * up).to(input.dtype))
