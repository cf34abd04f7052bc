"""The tensors of the simulated NPU: torch sees its device, the CPU holds the values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, ClassVar, cast

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from backends.devices.simulation.errors import SimulatedNpuError

ND, FRACTAL_NZ = 2, 29
"""Numbers of torch_npu's formats: plain strides, and blocks that its matrix units read."""
TYPE = "npu"
aten = torch.ops.aten
MATRIX_PRODUCTS = {aten.mm, aten.bmm, aten.addmm, aten.baddbmm, aten.convolution}
MATRIX_DTYPES = {torch.float16, torch.bfloat16, torch.float32}
INDEXED = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default}
KEEP_FORMAT = {aten.detach, aten.alias}
TURN = {aten.t, aten.transpose}
TORCH_DATA: Any = Tensor.data


class SimulatedTensor(Tensor):
    """`host` is the CPU tensor with the values; views of this tensor are views of it.

    `acl_format` is its layout in memory, and `is_turned` says that it is the transposed view of one in FRACTAL_NZ.
    """

    host: Tensor
    acl_format: int
    is_turned: bool
    missing_dtypes: ClassVar[frozenset[torch.dtype]] = frozenset()

    @staticmethod
    def __new__(cls: Any, host: Tensor, acl_format: int = ND, is_turned: bool = False) -> Any:
        """Wrap a CPU tensor; raises SimulatedNpuError for a dtype that the NPU does not have."""
        if host.dtype in cls.missing_dtypes:
            raise SimulatedNpuError(f"there are no tensors of {host.dtype}; Ascend 910B has no such dtype")
        made = Tensor._make_wrapper_subclass(  # noqa: SLF001 - torch's own way
            cls,
            host.size(),
            strides=host.stride(),
            storage_offset=host.storage_offset(),
            dtype=host.dtype,
            device=torch.device(TYPE, 0),
        )
        made.host, made.acl_format, made.is_turned = host, acl_format, is_turned
        return made

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__()

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch's own is typed as if it were no class method
        cls, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operator on the hosts of its arguments, refusing what an NPU would."""
        del types
        return run(func, args, dict(kwargs or {}))

    def __repr__(self) -> str:  # type: ignore[override]
        return f"simulated_npu({self.host!r})"

    def tolist(self) -> Any:
        """The values, read from the host."""
        return self.host.tolist()

    def untyped_storage(self) -> torch.UntypedStorage:
        """The host's: torch's own would be empty, and all tensors would seem to share it."""
        return self.host.untyped_storage()

    def data_ptr(self) -> int:
        """The host's address; torch's own would be 0 for all."""
        return self.host.data_ptr()

    def as_subclass(self, cls: type[Tensor]) -> Tensor:  # type: ignore[override]
        """The same values as a `cls` that still is on this device; torch's own would lose them."""
        return combined(cls)(self.host, self.acl_format, self.is_turned)

    def _get_data(self) -> Tensor:
        return self.detach()

    def _set_data(self, new: Tensor) -> None:
        # Torch swaps the shell only: without this the old values would stay behind it, silently.
        if not isinstance(new, SimulatedTensor):
            raise SimulatedNpuError(f"the data of a tensor on the NPU is set to one on {new.device}")
        TORCH_DATA.__set__(self, new)
        self.host, self.acl_format, self.is_turned = new.host, new.acl_format, new.is_turned

    data = property(_get_data, _set_data)


@cache
def combined(cls: type[Tensor]) -> Callable[..., Tensor]:
    """A class that is both `cls` and a simulated tensor, made without running the constructor of `cls`."""
    both = type(cls.__name__, (cls, SimulatedTensor), {"__module__": cls.__module__})

    def wrap(host: Tensor, acl_format: int, is_turned: bool) -> Tensor:
        return cast("Tensor", SimulatedTensor.__new__(both, host, acl_format, is_turned))

    return wrap


def host_of(x: Any) -> Any:
    """The CPU tensor behind a simulated one; anything else as it is."""
    return x.host if isinstance(x, SimulatedTensor) else x


def run(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """One operator; operators of torch_npu are looked up among those that are simulated."""
    if func.namespace == TYPE:
        from backends.devices.simulation.operators import OPERATORS  # they need this file's tensors

        return OPERATORS[func._schema.name.partition("::")[2]](*args, **kwargs)  # noqa: SLF001 - torch has no other
    packet = func.overloadpacket
    if func is aten.copy_.default:
        host_of(args[0]).copy_(host_of(args[1]))
        return args[0]
    target = kwargs.get("device")
    goes_home = target is not None and torch.device(target).type != TYPE
    if target is not None and not goes_home:
        kwargs["device"] = torch.device("cpu")
    if goes_home and packet is aten._to_copy:  # noqa: SLF001 - torch's own name
        return _fetched(func, args[0].host, kwargs)
    _require_supported(func, packet, args)
    given: dict[int, SimulatedTensor] = {}
    out = func(*tree_map(lambda x: _opened(x, given), args), **tree_map(lambda x: _opened(x, given), kwargs))
    if goes_home:
        return out
    first = args[0] if args and isinstance(args[0], SimulatedTensor) else None
    return tree_map(lambda x: _closed(x, given, packet, first), out)


def _fetched(func: Any, host: Tensor, kwargs: dict[str, Any]) -> Tensor:
    fetched: Tensor = func(host, **kwargs)
    return fetched.clone() if fetched.untyped_storage().data_ptr() == host.untyped_storage().data_ptr() else fetched


def _opened(x: Any, given: dict[int, SimulatedTensor]) -> Any:
    if not isinstance(x, SimulatedTensor):
        return x
    given[id(x.host)] = x
    return x.host


def _closed(x: Any, given: dict[int, SimulatedTensor], packet: Any, first: SimulatedTensor | None) -> Any:
    if not isinstance(x, Tensor):
        return x
    if id(x) in given:
        return given[id(x)]
    if first is not None and first.acl_format == FRACTAL_NZ and packet in KEEP_FORMAT | TURN:
        return SimulatedTensor(x, FRACTAL_NZ, first.is_turned != (packet in TURN))
    return SimulatedTensor(x)


def _require_supported(func: Any, packet: Any, args: Sequence[Any]) -> None:
    tensors = [x for arg in args for x in (arg if isinstance(arg, list | tuple) else (arg,)) if isinstance(x, Tensor)]
    if func not in INDEXED:
        for x in tensors:
            if not isinstance(x, SimulatedTensor) and x.dim() > 0:
                raise SimulatedNpuError(
                    f"expected all tensors to be on the same device, found {TYPE}:0 and {x.device} in {func}"
                )
    if packet in MATRIX_PRODUCTS and not {x.dtype for x in tensors} <= MATRIX_DTYPES:
        found = ", ".join(sorted({str(x.dtype) for x in tensors}))
        raise SimulatedNpuError(f"{func} multiplies float16, bfloat16 and float32, found {found}")
    if packet is aten._int_mm:  # noqa: SLF001 - torch's own name
        raise SimulatedNpuError(f"there is no {func}; integers are multiplied by npu_quant_matmul")
    has_blocks = any(isinstance(x, SimulatedTensor) and x.acl_format == FRACTAL_NZ for x in tensors)
    if has_blocks and packet not in KEEP_FORMAT | TURN:
        raise SimulatedNpuError(
            f"{func} of a tensor in FRACTAL_NZ, which would be converted back first; cast it to ND with "
            "npu_format_cast, or take the part before the cast"
        )
