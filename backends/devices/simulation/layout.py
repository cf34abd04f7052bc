"""Formats of tensors in the NPU's memory, and what an operator asks of the layout of a weight."""

from __future__ import annotations

from backends.devices.simulation.errors import require
from backends.devices.simulation.tensor import FRACTAL_NZ, ND, SimulatedTensor

KNOWN = {ND: "ND", FRACTAL_NZ: "FRACTAL_NZ"}
BLOCKED_DIMS = (2, 3)


# The arguments are those of torch_npu's schema, which calls by their names.
def npu_format_cast(
    input: SimulatedTensor,  # noqa: A002
    acl_format: int,
    *,
    customize_dtype: int | None = None,
    input_dtype: int | None = None,
) -> SimulatedTensor:
    """A copy in that format; FRACTAL_NZ takes matrices, and stacks of them, that are contiguous."""
    require(customize_dtype is None and input_dtype is None, "npu_format_cast is simulated without other dtypes")
    require(acl_format in KNOWN, f"npu_format_cast is simulated to {sorted(KNOWN)}, not to {acl_format}")
    if acl_format == FRACTAL_NZ:
        require(
            input.dim() in BLOCKED_DIMS and input.host.is_contiguous(),
            f"FRACTAL_NZ takes contiguous tensors of 2 or 3 dimensions, found {list(input.shape)} with strides "
            f"{list(input.stride())}",
        )
        require(input.numel() > 0, "FRACTAL_NZ of an empty tensor")
    return SimulatedTensor(input.host.clone(), acl_format)


def get_npu_format(input: SimulatedTensor) -> int:  # noqa: A002 - the schema's name
    """The number of the tensor's format."""
    return input.acl_format


def require_matrices(weight: SimulatedTensor, name: str, operator: str) -> None:
    """A weight's matrices must lie row by row, or column by column (the transposed view), in either format."""
    host = weight.host
    is_turned = host.transpose(-1, -2).is_contiguous()
    require(
        host.is_contiguous() or is_turned,
        f"{operator}: {name} {list(weight.shape)} has strides {list(weight.stride())}; it must be contiguous or the "
        "transposed view of a contiguous tensor",
    )


def require_plain(operator: str, **tensors: SimulatedTensor | None) -> None:
    """These tensors may not be in FRACTAL_NZ."""
    for name, x in tensors.items():
        require(x is None or x.acl_format == ND, f"{operator}: {name} is in FRACTAL_NZ; only the weight may be")
