"""Parameters that know how they are sharded, and the loaders every layer's own loader ends in."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from backends.native.errors import ShapeError

LOOK_AT = "compare the tensor's shape on disk with config.json, and its tp_size slice with the layer"


class ModelParameter(nn.Parameter):
    """A parameter with the attributes a weight loader needs.

    `output_dim` and `input_dim` say which dimension is sharded by column and row parallel layers (None: neither).
    `block` is the number of weight elements that one element stands for along (output_dim, input_dim).
    """

    full_name: str
    weight_loader: Callable[..., None]
    output_dim: int | None
    input_dim: int | None
    block: tuple[int, int]

    def __new__(cls, data: Tensor, **_: object) -> ModelParameter:  # noqa: PYI034 - typing.Self needs Python 3.11
        """A parameter that is never trained."""
        return super().__new__(cls, data, requires_grad=False)

    def __init__(
        self,
        data: Tensor,
        *,
        full_name: str,
        weight_loader: Callable[..., None],
        output_dim: int | None = None,
        input_dim: int | None = None,
        block: tuple[int, int] = (1, 1),
    ) -> None:
        del data
        self.full_name = full_name
        self.weight_loader = weight_loader
        self.output_dim, self.input_dim, self.block = output_dim, input_dim, block

    def output_blocks(self, size: int) -> int:
        """`size` output elements of the weight in elements of this parameter; a last partial block counts."""
        return -(-size // self.block[0])


def name_of(param: Tensor) -> str:
    """What an error calls the parameter."""
    return getattr(param, "full_name", "a parameter")


def default_weight_loader(param: Tensor, loaded_weight: Tensor) -> None:
    """Copy the whole tensor; a scalar and a one-element tensor fit each other. Raises ShapeError."""
    if param.numel() == 1 and loaded_weight.numel() == 1:
        loaded_weight = loaded_weight.reshape(param.shape)
    copy_checked(param.data, loaded_weight, name_of(param))


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
