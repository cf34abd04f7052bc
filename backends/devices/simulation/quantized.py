"""Simulated quantization and integer products: torch_npu's arguments, its tables of dtypes and shapes, its limits."""

from __future__ import annotations

import torch
from torch import Tensor

from backends.devices.simulation.errors import require
from backends.devices.simulation.layout import require_matrices, require_plain
from backends.devices.simulation.tensor import SimulatedTensor

INT8_MAX = 127
MAX_INNER = 65535
FP19 = -(1 << 13)
"""The dequantizing unit reads 1 + 8 + 10 bits of a float32 scale."""
SCALAR_TYPES = {
    1: torch.int8,
    3: torch.int32,
    5: torch.float16,
    6: torch.float32,
    12: torch.qint8,
    15: torch.bfloat16,
}
"""Torch's numbers of dtypes, as a schema's `int?` gets them when a dtype is passed."""
I8, I32, I64 = torch.int8, torch.int32, torch.int64
F16, BF16, F32 = torch.float16, torch.bfloat16, torch.float32
# By output dtype and whether there is a scale per token: scales and biases that torch_npu documents for Atlas A2, A3.
PRODUCTS: dict[tuple[torch.dtype, bool], tuple[set[torch.dtype], set[torch.dtype]]] = {
    (F16, False): ({I64, F32}, {I32}),
    (I8, False): ({I64, F32}, {I32}),
    (BF16, False): ({F32, BF16}, {I32, BF16, F32}),
    (BF16, True): ({F32, BF16}, {I32, BF16, F32}),
    (F16, True): ({F32}, {I32, F16, F32}),
    (I32, False): ({F32, BF16}, {I32}),
}


def dtype_of(number: int | torch.dtype | None, default: torch.dtype) -> torch.dtype:
    """The dtype that a schema's number means."""
    if number is None or isinstance(number, torch.dtype):
        return number or default
    require(number in SCALAR_TYPES, f"the dtype numbered {number} is not simulated")
    return SCALAR_TYPES[number]


def npu_dynamic_quant(
    input: SimulatedTensor,  # noqa: A002 - the schema's name
    *,
    smooth_scales: SimulatedTensor | None = None,
    group_index: SimulatedTensor | None = None,
    dst_type: int | None = None,
    quant_mode: str = "pertoken",
    dst_type_max: float = 0.0,
) -> tuple[SimulatedTensor, SimulatedTensor]:
    """int8 of the input's shape, and float32 scales of the shape without its last dimension."""
    require(input.dtype in (F16, BF16), f"npu_dynamic_quant takes float16 and bfloat16, found {input.dtype}")
    require(input.dim() > 1, f"npu_dynamic_quant takes at least 2 dimensions, found {list(input.shape)}")
    is_plain = group_index is None and quant_mode == "pertoken" and not dst_type_max
    require(is_plain and dtype_of(dst_type, I8) == I8, "npu_dynamic_quant is simulated per token and to int8 only")
    wide = input.host.float()
    if smooth_scales is not None:
        require(
            smooth_scales.dtype == input.dtype and smooth_scales.shape == input.shape[-1:],
            f"npu_dynamic_quant: smooth_scales must be {input.dtype} {list(input.shape[-1:])}",
        )
        wide = wide * smooth_scales.host.float()
    scale = wide.abs().amax(-1, keepdim=True) / INT8_MAX
    quantized = (wide / scale).round().nan_to_num(0.0).clamp(-INT8_MAX - 1, INT8_MAX)
    return SimulatedTensor(quantized.to(I8)), SimulatedTensor(scale.squeeze(-1).clone())


def npu_quantize(
    input: SimulatedTensor,  # noqa: A002 - the schema's name
    scales: SimulatedTensor,
    zero_points: SimulatedTensor | None,
    dtype: int,
    axis: int = 1,
    div_mode: bool = True,
) -> SimulatedTensor:
    """`input / scales + zero_points` (`input * scales` without div_mode), rounded to int8; scales along `axis`."""
    require(input.dtype in (F16, BF16, F32), f"npu_quantize takes float tensors, found {input.dtype}")
    require(dtype_of(dtype, torch.qint8) == torch.qint8, "npu_quantize is simulated to qint8 only")
    allowed = (F32, BF16) if div_mode else (F16, BF16, F32)
    require(scales.dtype in allowed, f"npu_quantize: scales are {scales.dtype}, expected one of {allowed}")
    if zero_points is not None:
        kinds = (I8, torch.uint8, I32, BF16) if div_mode else (scales.dtype,)
        require(zero_points.dtype in kinds, f"npu_quantize: zero_points are {zero_points.dtype}, expected {kinds}")
        require(zero_points.shape == scales.shape, "npu_quantize: zero_points must have the shape of scales")
    size = input.shape[axis]
    require(
        scales.dim() == 1 and scales.numel() in (1, size),
        f"npu_quantize: scales {list(scales.shape)} must have 1 or {size} elements, as dimension {axis}",
    )
    shape = [1] * input.dim()
    shape[axis] = -1
    wide, by = input.host.float(), scales.host.float().view(shape)
    moved = (wide / by if div_mode else wide * by).round()
    if zero_points is not None:
        moved = moved + zero_points.host.float().view(shape)
    return SimulatedTensor(moved.round().clamp(-INT8_MAX - 1, INT8_MAX).to(I8))


def npu_trans_quant_param(
    scale: SimulatedTensor, offset: SimulatedTensor | None = None, round_mode: int | None = 0
) -> SimulatedTensor:
    """int64 whose low half has the bits of the float32 scales, cut to the 19 that are read."""
    require(scale.dtype == F32, f"npu_trans_quant_param takes float32, found {scale.dtype}")
    is_row = scale.dim() == 1 or (scale.dim() == len("1n") and scale.shape[0] == 1)
    require(is_row, "the scale shape support only (1, ) and (1, n)")
    require(offset is None and not round_mode, "npu_trans_quant_param is simulated without offset and rounding")
    return SimulatedTensor((scale.host.contiguous().view(I32) & FP19).long() & 0xFFFFFFFF)


def scale_values(scale: Tensor, is_read_as_fp19: bool) -> Tensor:
    """Scales as float32: unpacked from int64, and cut to 19 bits where the dequantizing unit reads them."""
    if scale.dtype == I64:
        return (scale.to(I32) & FP19).view(F32)
    return (scale.float().contiguous().view(I32) & FP19).view(F32) if is_read_as_fp19 else scale.float()


def npu_quant_matmul(
    x1: SimulatedTensor,
    x2: SimulatedTensor,
    scale: SimulatedTensor,
    *,
    offset: SimulatedTensor | None = None,
    pertoken_scale: SimulatedTensor | None = None,
    bias: SimulatedTensor | None = None,
    output_dtype: int | None = None,
    **others: object,
) -> SimulatedTensor:
    """`(x1 @ x2 + int bias) * scale * pertoken_scale + float bias`: x1 [m, k], x2 [k, n], scale [1 or n]."""
    require(not any(v is not None for v in others.values()), "npu_quant_matmul is simulated for int8 only")
    wanted = dtype_of(output_dtype, I8)
    _require_product(x1, x2, scale, pertoken_scale, bias, wanted)
    require(offset is None, "npu_quant_matmul is simulated without an offset of int8 outputs")
    total = x1.host.double() @ x2.host.double()
    if bias is not None and bias.dtype == I32:
        total = total + bias.host.double()
    is_fp19 = pertoken_scale is None and wanted in (F16, I8)
    out = total.float() * scale_values(scale.host, is_fp19)
    if pertoken_scale is not None:
        out = out * pertoken_scale.host.unsqueeze(-1)
    if bias is not None and bias.dtype != I32:
        out = out + bias.host.float()
    if not wanted.is_floating_point:
        out = out.round().clamp(torch.iinfo(wanted).min, torch.iinfo(wanted).max)
    return SimulatedTensor(out.to(wanted))


def _require_product(
    x1: SimulatedTensor,
    x2: SimulatedTensor,
    scale: SimulatedTensor,
    pertoken_scale: SimulatedTensor | None,
    bias: SimulatedTensor | None,
    wanted: torch.dtype,
) -> None:
    name = "npu_quant_matmul"
    require_plain(name, x1=x1, scale=scale, pertoken_scale=pertoken_scale, bias=bias)
    require(x1.dtype == I8 and x2.dtype == I8, f"{name}: x1 is {x1.dtype}, x2 is {x2.dtype}, expected int8")
    is_matrix = x1.dim() == x2.dim() == len("mk")
    require(is_matrix, f"{name} is simulated for 2 dimensions, found {x1.dim()} and {x2.dim()}")
    require(x1.shape[1] == x2.shape[0], f"{name}: k dim of x1 and x2 need be same, {x1.shape[1]} and {x2.shape[0]}")
    require(x1.numel() > 0 and x2.numel() > 0, f"{name}: x1 or x2 is empty")
    require(
        max(x1.shape[-1], x2.shape[0] if x2.is_turned else x2.shape[-1]) <= MAX_INNER,
        f"{name}: the last dimension of x1 {list(x1.shape)} or x2 {list(x2.shape)} is above {MAX_INNER}",
    )
    require_matrices(x2, "x2", name)
    n = x2.shape[-1]
    require(scale.dim() == 1 and scale.numel() in (1, n), f"{name}: scale {list(scale.shape)} must be [1] or [{n}]")
    key = (wanted, pertoken_scale is not None)
    require(key in PRODUCTS, f"{name}: no output in {wanted} {'with' if key[1] else 'without'} pertoken_scale")
    scales, biases = PRODUCTS[key]
    require(scale.dtype in scales, f"{name}: scale is {scale.dtype}, for an output in {wanted} one of {scales}")
    if pertoken_scale is not None:
        is_right = pertoken_scale.dtype == F32 and pertoken_scale.shape == x1.shape[:1]
        require(is_right, f"{name}: pertoken_scale must be float32 [{x1.shape[0]}]")
    if bias is not None:
        require(bias.dtype in biases, f"{name}: bias is {bias.dtype}, for an output in {wanted} one of {biases}")
        require(bias.shape == (n,), f"{name}: bias {list(bias.shape)} must be [{n}]")


def npu_weight_quant_batchmatmul(
    x: SimulatedTensor,
    weight: SimulatedTensor,
    antiquant_scale: SimulatedTensor,
    antiquant_offset: SimulatedTensor | None = None,
    quant_scale: SimulatedTensor | None = None,
    quant_offset: SimulatedTensor | None = None,
    bias: SimulatedTensor | None = None,
    antiquant_group_size: int = 0,
    inner_precise: int = 0,
    weight_dtype: int | None = None,
) -> SimulatedTensor:
    """`x @ ((weight + antiquant_offset) * antiquant_scale) + bias`: x [m, k] half, weight [k, n] int8."""
    del inner_precise
    name = "npu_weight_quant_batchmatmul"
    unused = (quant_scale, quant_offset, weight_dtype)
    is_plain = all(x is None for x in unused) and not antiquant_group_size
    require(is_plain, f"{name} is simulated per tensor and per channel only")
    require(x.dtype in (F16, BF16), f"{name} takes float16 and bfloat16, found {x.dtype}")
    require(weight.dtype == I8, f"{name}: weight is {weight.dtype}, expected int8")
    require(x.shape[-1] == weight.shape[0], f"{name}: x {list(x.shape)} and weight {list(weight.shape)}")
    require_matrices(weight, "weight", name)
    for part in (antiquant_scale, antiquant_offset):
        is_right = part is None or (part.dtype == x.dtype and part.numel() in (1, weight.shape[1]))
        require(is_right, f"{name}: antiquant_scale and antiquant_offset must be {x.dtype} of 1 or n elements")
    if bias is not None:
        wanted = F32 if x.dtype == BF16 else F16
        require(bias.dtype == wanted, f"{name}: bias is {bias.dtype}, expected {wanted} for an input in {x.dtype}")
    shifted = weight.host.float() if antiquant_offset is None else weight.host + antiquant_offset.host.float()
    out = x.host.float() @ (shifted * antiquant_scale.host.float())
    return SimulatedTensor((out if bias is None else out + bias.host.float()).to(x.dtype))
