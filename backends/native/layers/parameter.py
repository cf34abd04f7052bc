"""Parameters that know how they are sharded, and the loaders every layer's own loader ends in."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from backends.native.errors import ShapeError

LOOK_AT = "compare the tensor's shape on disk with config.json, and its tp_size slice with the layer"


class ShardedParameter(nn.Parameter):
    """What a weight loader must know of a parameter, apart from the loader itself.

    `output_dim` and `input_dim` say which dimension is sharded by column and row parallel layers (None: neither).
    `block` is the number of weight elements that one element stands for along (output_dim, input_dim).
    `shard_dim` is the dimension with one entry for each logical shard of a fused layer, such as a scale per tensor.
    """

    full_name: str
    weight_loader: Callable[..., None]
    output_dim: int | None
    input_dim: int | None
    shard_dim: int | None
    block: tuple[int, int]

    def __new__(cls, data: Tensor, **_: object) -> ShardedParameter:  # noqa: PYI034 - typing.Self needs Python 3.11
        """A parameter that is never trained.

        Tensors of a device that is written in Python have a class of their own, which torch would keep instead of this.
        """
        if type(data) in (Tensor, nn.Parameter):
            return super().__new__(cls, data, requires_grad=False)
        return data.as_subclass(cls)

    def __init__(
        self,
        data: Tensor,
        *,
        full_name: str,
        weight_loader: Callable[..., None],
        output_dim: int | None = None,
        input_dim: int | None = None,
        shard_dim: int | None = None,
        block: tuple[int, int] = (1, 1),
    ) -> None:
        del data
        self.full_name = full_name
        self._set_weight_loader(weight_loader)
        self.output_dim, self.input_dim, self.shard_dim, self.block = output_dim, input_dim, shard_dim, block

    @abstractmethod
    def _set_weight_loader(self, weight_loader: Callable[..., None]) -> None:
        """Keep the loader where this kind of parameter keeps it."""

    def output_blocks(self, size: int) -> int:
        """`size` output elements of the weight in elements of this parameter; a last partial block counts."""
        return -(-size // self.block[0])


class ModelParameter(ShardedParameter):
    """A parameter whose `weight_loader` can be read only; the loader behind it is `_weight_loader`."""

    @property
    def weight_loader(self) -> Callable[..., None]:  # type: ignore[override]  # the other kind has an attribute
        """The function that fills this parameter from a tensor on disk."""
        return self._weight_loader

    def _set_weight_loader(self, weight_loader: Callable[..., None]) -> None:
        self._weight_loader = weight_loader


class AttributeParameter(ShardedParameter):
    """A parameter with `weight_loader` as a plain attribute, as methods of several devices make them."""

    def _set_weight_loader(self, weight_loader: Callable[..., None]) -> None:
        self.weight_loader = weight_loader


def replace_weight_loader(param: nn.Parameter, weight_loader: Callable[..., None]) -> None:
    """Give a parameter of either kind another loader, as a model does for tensors that are packed on disk."""
    name = "_weight_loader" if hasattr(param, "_weight_loader") else "weight_loader"
    setattr(param, name, weight_loader)


def name_of(param: Tensor) -> str:
    """What an error calls the parameter."""
    return getattr(param, "full_name", "a parameter")


def default_weight_loader(param: Tensor, loaded_weight: Tensor) -> None:
    """Copy the whole tensor, into each entry of a parameter that has one per logical shard. Raises ShapeError.

    A scalar and a one-element tensor fit each other.
    """
    if getattr(param, "shard_dim", None) is not None:
        fill_shards(param.data, loaded_weight, range(param.shape[0]), name_of(param))
        return
    if param.numel() == 1 and loaded_weight.numel() == 1:
        loaded_weight = loaded_weight.reshape(param.shape)
    copy_checked(param.data, loaded_weight, name_of(param))


def fill_shards(destination: Tensor, loaded_weight: Tensor, positions: Sequence[int], name: str) -> None:
    """Write the entries `positions` of `destination` [logical shards, ...] from a tensor that was stored for them.

    The tensor is one entry, which all of them get ([] and [1] alike for a single element), or as many as there are
    positions. Raises ShapeError for anything else.
    """
    entry = destination.shape[1:]
    if loaded_weight.numel() == 1 == math.prod(entry):
        loaded_weight = loaded_weight.reshape(entry)
    if loaded_weight.shape == entry:
        loaded_weight = loaded_weight.expand(len(positions), *entry)
    require_size(loaded_weight, 0, len(positions), name)
    for index, position in enumerate(positions):
        copy_checked(destination.select(0, position), loaded_weight.select(0, index), name)


def sharded_weight_loader(tp_rank: int, tp_size: int) -> Callable[[Tensor, Tensor], None]:
    """A loader that takes this rank's contiguous slice of the output dimension, or of dimension 0."""

    def load_slice(param: Tensor, loaded_weight: Tensor) -> None:
        dim = getattr(param, "output_dim", 0)
        if dim is None:
            default_weight_loader(param, loaded_weight)
        else:
            copy_checked(param.data, contiguous_slice(param, loaded_weight, dim, tp_rank, tp_size), name_of(param))

    return load_slice


def contiguous_slice(
    destination: Tensor, loaded_weight: Tensor, dim: int, tp_rank: int, tp_size: int, name: str = ""
) -> Tensor:
    """The slice along `dim` of a rank whose `destination` is one of `tp_size` equal parts of the tensor."""
    size = destination.shape[dim]
    require_size(loaded_weight, dim, size * tp_size, name or name_of(destination))
    return loaded_weight.narrow(dim, tp_rank * size, size)


def require_size(x: Tensor, dim: int, size: int, name: str) -> None:
    """Raise ShapeError unless the tensor on disk has `size` elements along `dim`."""
    if dim >= x.dim() or x.shape[dim] != size:
        raise ShapeError(
            f"{name} is filled from {size} elements of dimension {dim}, the tensor on disk is {list(x.shape)}.", LOOK_AT
        )


def copy_checked(destination: Tensor, source: Tensor, name: str) -> None:
    """Copy, casting the dtype as `copy_` does but never broadcasting; raises ShapeError."""
    if destination.shape != source.shape:
        raise ShapeError(
            f"{name} expects {list(destination.shape)} here, the tensor gives {list(source.shape)}.", LOOK_AT
        )
    destination.copy_(source)
