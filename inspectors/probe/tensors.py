"""Describes tensors with the torch the host has imported; nothing here imports it."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

Shape = tuple[int, ...]


_dtype_names: dict[Any, str] = {}


def dtype_name(tensor: Any) -> str:
    """`torch.float8_e4m3fn` → `float8_e4m3fn`; "" for something that is no tensor."""
    dtype = getattr(tensor, "dtype", "")
    name = _dtype_names.get(dtype)
    if name is None:
        name = _dtype_names[dtype] = str(dtype).removeprefix("torch.")
    return name


def shape_of(tensor: Any) -> Shape:
    """The shape as plain ints; () for something that is no tensor, and for a parameter that has no shape yet."""
    try:
        return tuple(getattr(tensor, "shape", ()))
    except RuntimeError:
        return ()


def size_bytes(tensor: Any) -> int:
    """Bytes of the elements, from the shape alone; 0 for what has none."""
    try:
        return int(getattr(tensor, "nbytes", 0))
    except (RuntimeError, ValueError):
        return 0


def storage_of(tensor: Any) -> int:
    """Address of the tensor's storage, the same for all its views; 0 for what has none."""
    try:
        return int(tensor.untyped_storage().data_ptr())
    except (AttributeError, RuntimeError, NotImplementedError, ValueError):
        return 0  # ValueError: a parameter of torch's that gets its memory later


def local_part(tensor: Any) -> Any:
    """What this rank holds of a tensor that is spread over ranks (DTensor), any other tensor itself."""
    return getattr(tensor, "_local_tensor", tensor)


def has_memory(tensor: Any) -> bool:
    """False for what has no elements to look at: of a device without values, or without a shape yet."""
    try:
        return bool(tensor.device.type != "meta" and tensor.numel() >= 0)
    except (AttributeError, RuntimeError, ValueError):
        return False


def plain_tensors() -> Any:
    """A context in which tensor attributes are read directly, without the host's subclasses and function modes.

    A host under `torch.device(...)` pays several microseconds for each attribute otherwise. None without torch.
    """
    make = _made.get("DisableTorchFunction")
    if make is None:
        make = getattr(getattr(sys.modules.get("torch"), "_C", None), "DisableTorchFunction", None)
        if make is None:
            return None
        _made["DisableTorchFunction"] = make
    return make()


_made: dict[str, Any] = {}


def brief(tensor: Any) -> str:
    """`bfloat16[4,256]`."""
    return f"{dtype_name(tensor)}[{','.join(map(str, shape_of(tensor)))}]"


def is_tensor(value: Any) -> bool:
    """True for a torch tensor; False where torch was never imported."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def type_name(value: Any) -> str:
    """The own name of the value's class, or of the value where it is a class."""
    return (value if isinstance(value, type) else type(value)).__name__


def unobserved() -> contextlib.AbstractContextManager[Any]:
    """A block whose tensor operations no mode of ours or the host's sees, and autograd neither."""
    stack = contextlib.ExitStack()
    modes = sys.modules.get("torch.utils._python_dispatch")
    torch = sys.modules.get("torch")
    if modes is not None and torch is not None:
        stack.enter_context(modes._disable_current_modes())  # noqa: SLF001 - torch has no public name for it
        stack.enter_context(torch.no_grad())
    return stack
