"""Methods of quantized layers whose weights are stored as several tensors, for any format that says which."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from backends.native.errors import ShapeError
from backends.native.kernels.choice import alternative, kernel
from backends.native.kernels.reference.fused_moe import Linear, run_experts
from backends.native.layers.linear import LinearBase
from backends.native.layers.moe import FusedMoE
from backends.native.layers.parameter import ModelParameter, ShardedParameter
from backends.native.quantization.config import LinearMethod, MoEMethod

SHARD, OUTPUT, INPUT = "shard", "output", "input"
Tensors = Mapping[str, Tensor]
Multiply = Callable[..., Tensor]
"""The chosen kernel of a format's operation."""
EXAMPLE_SIZE = 4096


@dataclass(frozen=True)
class WeightPart:
    """Sizes of a weight [output, input], fused from projections, and of the part of it that one rank holds.

    `input_part` is the number of that part where the input is split, 0 where it is not.
    """

    prefix: str
    input_size: int
    input_size_per_partition: int
    output_size: int
    output_partition_sizes: tuple[int, ...]
    params_dtype: torch.dtype
    input_part: int = 0

    @classmethod
    def whole(cls, weight: Tensor) -> WeightPart:
        """All of the weight of one projection."""
        rows, columns = weight.shape
        return cls("", columns, columns, rows, (rows,), weight.dtype)

    @property
    def is_input_split(self) -> bool:
        """Whether the ranks hold different inputs, and sum their outputs."""
        return self.input_size_per_partition < self.input_size

    @property
    def is_output_split(self) -> bool:
        """Whether an edge between projections or ranks cuts the outputs."""
        return len(self.output_partition_sizes) > 1 or sum(self.output_partition_sizes) < self.output_size

    def require_divisible(self, *, output: int = 1, input: int = 1, remedy: str) -> None:  # noqa: A002 - the field's word
        """Raise ShapeError where a rank or a projection would own a part of `output` rows or `input` columns."""
        if self.input_size_per_partition % input:
            raise ShapeError(
                f"Weight input_size_per_partition = {self.input_size_per_partition} is not divisible by {input} "
                f"elements that are stored together. The layer is {self.prefix}.",
                remedy,
            )
        for size in self.output_partition_sizes:
            if size % output:
                raise ShapeError(
                    f"Weight output_partition_size = {size} is not divisible by {output} elements that are stored "
                    f"together. The layer is {self.prefix}.",
                    remedy,
                )


@dataclass(frozen=True)
class StoredTensor:
    """One of the tensors that stand for a weight on disk: `<module>.<suffix>`.

    `dims` are "shard" (one entry per projection), "output", "input" or a size that is never split; one element stands
    for `block` elements of the weight along (output, input).
    """

    suffix: str
    dtype: torch.dtype
    dims: tuple[str | int, ...] = (OUTPUT, INPUT)
    block: tuple[int, int] = (1, 1)
    parameter: type[ShardedParameter] = ModelParameter

    def shape(self, part: WeightPart) -> tuple[int, ...]:
        """The shape of this rank's part."""
        sizes = {
            SHARD: len(part.output_partition_sizes),
            OUTPUT: -(-sum(part.output_partition_sizes) // self.block[0]),
            INPUT: -(-part.input_size_per_partition // self.block[1]),
        }
        return tuple(sizes[dim] if isinstance(dim, str) else dim for dim in self.dims)

    def empty(
        self, part: WeightPart, name: str, weight_loader: Callable[..., None], experts: tuple[int, ...] = ()
    ) -> ShardedParameter:
        """The uninitialised parameter of this rank, stacked over `experts`."""
        places = {
            dim: self.dims.index(dim) + len(experts) if dim in self.dims else None for dim in (SHARD, OUTPUT, INPUT)
        }
        return self.parameter(
            torch.empty(*experts, *self.shape(part), dtype=self.dtype),
            full_name=name,
            weight_loader=weight_loader,
            output_dim=places[OUTPUT],
            input_dim=places[INPUT],
            shard_dim=places[SHARD],
            block=self.block,
        )


class StoredWeight(ABC):
    """How a weight [output, input] is stored, made and multiplied; tensors are known by their suffixes.

    `OP` is the operation that multiplies, a file of kernels. `LAYOUT_OP` is the one that gives a weight which is
    multiplied as a whole the layout that the kernels want; `MOE_OP` runs all experts at once, where a kind of kernels
    has one: otherwise they run one after the other.
    """

    OP: ClassVar[str]
    LAYOUT_OP: ClassVar[str | None] = None
    MOE_OP: ClassVar[str | None] = None
    LINEAR_METHOD: ClassVar[type[StoredLinearMethod]]
    MOE_METHOD: ClassVar[type[StoredMoEMethod]]

    @abstractmethod
    def tensors(self, part: WeightPart) -> tuple[StoredTensor, ...]:
        """What is stored for that part of a weight."""

    def dtypes(self) -> frozenset[torch.dtype]:
        """What a large weight is stored in."""
        part = WeightPart("", EXAMPLE_SIZE, EXAMPLE_SIZE, EXAMPLE_SIZE, (EXAMPLE_SIZE,), torch.float32)
        return frozenset(spec.dtype for spec in self.tensors(part))

    def require_shape(self, part: WeightPart) -> None:
        """Raise ShapeError for a part that cannot be stored; any can where the format does not say otherwise."""
        del part

    @abstractmethod
    def quantize(self, weight: Tensor) -> dict[str, Tensor]:
        """The tensors on disk for the weight of one projection, [output, input] of any float dtype."""

    @abstractmethod
    def dequantize(self, tensors: Tensors) -> Tensor:
        """float32 [output, input] of one projection."""

    def finish(self, tensors: Tensors, part: WeightPart) -> Tensors:
        """Check or repack what was loaded; the reference kernels take the layout of the checkpoint."""
        del part
        return tensors

    @abstractmethod
    def linear(self, multiply: Multiply, x: Tensor, tensors: Tensors, bias: Tensor | None) -> Tensor:
        """`x` [tokens, input] times the weight of one projection, or of several that share what is per shard.

        `multiply` is the kernel of `OP`.
        """

    def with_quantized_inputs(self) -> StoredWeight:
        """The same weight multiplied as engines do on GPUs, where the checkpoint says so and this is not yet done."""
        return self

    def is_read_whole(self, tensors: Tensors) -> bool:
        """Whether `linear` hands on the weight as it is, so that it may have a layout of its kernel."""
        del tensors
        return True

    def moe_arguments(self, w13: Tensors, w2: Tensors) -> tuple[Tensor, ...] | None:
        """What the kernel of `MOE_OP` takes between `x` and the chosen experts; None where it cannot run these."""
        del w13, w2
        return None


class _Placed:
    """One stored weight of a layer: which parameters it has and how they multiply."""

    def __init__(
        self, stored: StoredWeight, part: WeightPart, kernels: Sequence[str], module: str, stem: str = ""
    ) -> None:
        stored.require_shape(part)
        self.stored, self.part, self.stem = stored, part, stem
        self.multiply = kernel(stored.OP, kernels, module)
        self.layout = None if stored.LAYOUT_OP is None else alternative(stored.LAYOUT_OP, kernels, module)
        self.specs = {spec.suffix: spec for spec in stored.tensors(part)}

    def register(self, layer: nn.Module, weight_loader: Callable[..., None], experts: tuple[int, ...] = ()) -> None:
        """Create the parameters, stacked over `experts`."""
        for suffix, spec in self.specs.items():
            name = f"{self.stem}{suffix}"
            full_name = f"{layer.prefix}.{name}"
            layer.register_parameter(name, spec.empty(self.part, full_name, weight_loader, experts))

    def tensors(self, layer: nn.Module) -> dict[str, Tensor]:
        """The parameters by suffix, without those that finishing has dropped."""
        own = dict(layer.named_parameters(recurse=False))
        names = {suffix: f"{self.stem}{suffix}" for suffix in self.specs}
        return {suffix: own[name] for suffix, name in names.items() if name in own}

    def finish(self, layer: nn.Module) -> None:
        """Replace the parameters that the format repacks, and drop those it needs no longer."""
        loaded = self.tensors(layer)
        finished = self.stored.finish(loaded, self.part)
        for suffix, tensor in loaded.items():
            name = f"{self.stem}{suffix}"
            if suffix not in finished:
                delattr(layer, name)
            elif finished[suffix] is not tensor:
                layer.register_parameter(name, nn.Parameter(finished[suffix], requires_grad=False))

    def merge_equal_shards(self, layer: nn.Module) -> None:
        """Keep one entry of what there is one of per projection where all are equal: one product instead of several."""
        held = {suffix: tensor for suffix, tensor in self.tensors(layer).items() if SHARD in self.specs[suffix].dims}
        is_fused = len(self.part.output_partition_sizes) > 1
        if is_fused and all(torch.equal(tensor, tensor[:1].expand_as(tensor)) for tensor in held.values()):
            for suffix, tensor in held.items():
                merged = nn.Parameter(tensor[:1].clone(), requires_grad=False)
                layer.register_parameter(f"{self.stem}{suffix}", merged)

    def lay_out(self, layer: nn.Module) -> None:
        """Give the weight the layout its kernel wants; no part of it may be taken from then on."""
        if self.layout is not None:
            held = self.tensors(layer)["weight"]
            layer.register_parameter(f"{self.stem}weight", nn.Parameter(self.layout(held), requires_grad=False))

    def is_whole(self, tensors: Tensors) -> bool:
        """Whether all projections share what there is one of per shard, so that one product is enough."""
        return all(tensor.shape[0] == 1 for suffix, tensor in tensors.items() if SHARD in self.specs[suffix].dims)

    def linear(self, x: Tensor, tensors: Tensors, bias: Tensor | None) -> Tensor:
        """`x` times the whole weight, projection by projection where they differ in what there is one of per shard."""
        if self.is_whole(tensors):
            return self.stored.linear(self.multiply, x, self._shard(tensors, 0, 0, None), bias)
        outputs, start = [], 0
        for position, size in enumerate(self.part.output_partition_sizes):
            own_bias = None if bias is None else bias.narrow(0, start, size)
            outputs.append(self.stored.linear(self.multiply, x, self._shard(tensors, position, start, size), own_bias))
            start += size
        return torch.cat(outputs, dim=-1)

    def _shard(self, tensors: Tensors, position: int, start: int, size: int | None) -> dict[str, Tensor]:
        out = {}
        for suffix, tensor in tensors.items():
            spec = self.specs[suffix]
            if SHARD in spec.dims:
                out[suffix] = tensor.select(0, position)
            elif size is not None and OUTPUT in spec.dims:
                rows = spec.block[0]
                out[suffix] = tensor.narrow(spec.dims.index(OUTPUT), start // rows, -(-size // rows))
            else:
                out[suffix] = tensor
        return out


class StoredLinearMethod(LinearMethod[LinearBase]):
    """A linear layer whose weight is stored as its format says; one object per layer."""

    def __init__(self, stored: StoredWeight) -> None:
        self.stored = stored
        self.weight: _Placed

    def create_weights(
        self,
        layer: LinearBase,
        input_size_per_partition: int,
        output_partition_sizes: Sequence[int],
        input_size: int,
        output_size: int,
        params_dtype: torch.dtype,
        **extra: Any,
    ) -> None:
        """Register the parameters of the format under its suffixes; raises ShapeError for a part that cannot be."""
        part = WeightPart(
            layer.prefix,
            input_size,
            input_size_per_partition,
            output_size,
            tuple(output_partition_sizes),
            params_dtype,
            input_part=layer.tp_rank if input_size_per_partition < input_size else 0,
        )
        self.weight = _Placed(self.stored, part, extra["kernels"], layer.prefix)
        self.weight.register(layer, extra["weight_loader"])

    def process_weights_after_loading(self, layer: LinearBase) -> None:
        """Let the format finish, and merge what its projections have in common."""
        self.weight.finish(layer)
        self.weight.merge_equal_shards(layer)
        tensors = self.weight.tensors(layer)
        if self.weight.is_whole(tensors) and self.stored.is_read_whole(tensors):
            self.weight.lay_out(layer)

    def apply(self, layer: LinearBase, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """`x` [tokens, input] -> [tokens, output] in the dtype of `x`."""
        return self.weight.linear(x, self.weight.tensors(layer), bias)


class StoredMoEMethod(MoEMethod[FusedMoE]):
    """Fused experts, stacked as `w13_<suffix>` and `w2_<suffix>`; one object per layer."""

    def __init__(self, stored: StoredWeight) -> None:
        self.stored = stored
        self.w13: _Placed
        self.w2: _Placed
        self.all_experts: Multiply | None = None

    def create_weights(
        self,
        layer: FusedMoE,
        input_size_per_partition: int,
        output_partition_sizes: Sequence[int],
        input_size: int,
        output_size: int,
        params_dtype: torch.dtype,
        **extra: Any,
    ) -> None:
        """Register gate and up as w13 [experts, gate + up, hidden], down as w2 [experts, hidden, intermediate]."""
        hidden, sizes = input_size_per_partition, tuple(output_partition_sizes)
        w13 = WeightPart(layer.prefix, input_size, hidden, output_size, sizes, params_dtype)
        whole, own = output_size // len(sizes), sizes[0]
        w2 = WeightPart(
            f"{layer.prefix} (down_proj)",
            whole,
            own,
            hidden,
            (hidden,),
            params_dtype,
            input_part=layer.tp_rank if own < whole else 0,
        )
        kernels, moe_op = extra["kernels"], self.stored.MOE_OP
        self.all_experts = None if moe_op is None else alternative(moe_op, kernels, layer.prefix)
        self.w13 = _Placed(self.stored, w13, kernels, layer.prefix, "w13_")
        self.w2 = _Placed(self.stored, w2, kernels, layer.prefix, "w2_")
        for placed in (self.w13, self.w2):
            placed.register(layer, extra["weight_loader"], (extra["num_experts"],))

    def process_weights_after_loading(self, layer: FusedMoE) -> None:
        """Let the format finish the stacks of both weights."""
        self.w13.finish(layer)
        self.w2.finish(layer)
        if self.all_experts is not None and self._moe_arguments(layer) is not None:
            self.w13.lay_out(layer)
            self.w2.lay_out(layer)

    def apply(
        self, layer: FusedMoE, x: Tensor, bias: Tensor | None = None, *, topk_weights: Tensor, topk_ids: Tensor
    ) -> Tensor:
        """Run the chosen experts at once where the kernels can, or one after the other."""
        del bias
        arguments = self._moe_arguments(layer)
        if self.all_experts is not None and arguments is not None:
            return self.all_experts(x, *arguments, topk_weights, topk_ids)
        w13, w2 = self.w13.tensors(layer), self.w2.tensors(layer)

        def expert(expert_id: int) -> tuple[Linear, Linear]:
            return (
                lambda inputs: self.w13.linear(inputs, _of_expert(w13, expert_id), None),
                lambda inputs: self.w2.linear(inputs, _of_expert(w2, expert_id), None),
            )

        return run_experts(x, expert, topk_weights, topk_ids)

    def _moe_arguments(self, layer: FusedMoE) -> tuple[Tensor, ...] | None:
        return self.stored.moe_arguments(self.w13.tensors(layer), self.w2.tensors(layer))


def _of_expert(stacks: Tensors, expert_id: int) -> Tensors:
    return {suffix: stack.select(0, expert_id) for suffix, stack in stacks.items()}
