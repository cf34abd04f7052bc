"""What an operator had to do, from its shapes: floating-point operations of its products and bytes that it moved."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from sessions.dtypes import item_bits
from sessions.launches import Launch

Shape = tuple[int, ...]
_TENSOR = re.compile(r"^([A-Za-z0-9_]+)\[([0-9,]*)\]$")


@dataclass(frozen=True)
class Described:
    """A tensor as `bfloat16[4,256]`; `stored` are the elements that lie in memory, fewer where it is broadcast."""

    shape: Shape
    stored: int
    bits: int

    @property
    def bytes(self) -> int:
        """Of the elements in memory."""
        return self.stored * self.bits // 8


@dataclass(frozen=True)
class Work:
    """`flops` counts a multiplication and an addition as two, of matrix products, attention and convolution only.

    0 is an operator that has none of these, None one whose products cannot be told from its shapes. `bytes` are its
    arguments and results, each once, None where it reads what only its values tell. `rule` says how it was found.
    """

    flops: int | None
    bytes: int | None
    rule: str


Rule = Callable[[Sequence[Described], Sequence[Described]], "int | None"]


def work_of(launch: Launch) -> Work:
    """The work of one launch; what is not known is None, never a guess."""
    return _work(launch.name, launch.launcher, launch.shapes, launch.outputs, launch.strides)


@lru_cache(maxsize=16_384)
def _work(
    name: str, launcher: str, shapes: tuple[str, ...], outputs: tuple[str, ...], strides: tuple[str, ...]
) -> Work:
    if launcher == "method":
        return Work(0, 0, "only holds other launches")
    library, _, op = name.rpartition("::")
    given = [described(text, stride) for text, stride in _paired(shapes, strides)]
    made = [described(text) for text in outputs]
    if any(one is None for one in (*given, *made)):
        return Work(None, None, "shapes that cannot be read")
    inputs, results = [one for one in given if one is not None], [one for one in made if one is not None]
    flops, rule = _flops(library, op, inputs, results)
    return Work(flops, _bytes(library, op, inputs, results), rule)


def described(text: str, stride: str = "") -> Described | None:
    """`bfloat16[4,256]`, with strides as `[256,1]` where they are known; None for anything else."""
    found = _TENSOR.match(text)
    bits = item_bits(found[1]) if found is not None else 0
    if found is None or (not bits and found[1] != "bool"):
        return None
    shape = tuple(int(size) for size in found[2].split(",") if size)
    steps = [int(step) for step in stride.strip("[]").split(",") if step.lstrip("-").isdigit()]
    kept = [size for size, step in zip(shape, steps, strict=False) if step] if len(steps) == len(shape) else shape
    return Described(shape, math.prod(kept), bits or 8)


def _paired(shapes: Sequence[str], strides: Sequence[str]) -> list[tuple[str, str]]:
    known = strides if len(strides) == len(shapes) else [""] * len(shapes)
    return list(zip(shapes, known, strict=True))


# --- floating-point operations


def _product(given: Sequence[Described], made: Sequence[Described]) -> int | None:
    """[…, M, K] × [K, N]: two for each element of the result and of the inner dimension."""
    matrices = [one.shape for one in given if len(one.shape) >= 2]
    if len(matrices) < 2 or not made:
        return None
    return 2 * math.prod(made[0].shape) * matrices[0][-1]


def _added_product(given: Sequence[Described], made: Sequence[Described]) -> int | None:
    """A matrix product to which the first argument, of any shape, is added."""
    return _product(given[1:], made)


def _linear(given: Sequence[Described], made: Sequence[Described]) -> int | None:
    """A linear layer, whatever its weight is packed in: the first argument's last dimension is the inner one."""
    if not given or not made or not given[0].shape or math.prod(given[0].shape[:-1]) != math.prod(made[0].shape[:-1]):
        return None
    return 2 * math.prod(made[0].shape) * given[0].shape[-1]


def _experts(given: Sequence[Described], made: Sequence[Described]) -> int | None:
    """Tokens [T, H] through k of E experts: [E, 2I, H] and [E, H, I]; None where the weights are packed."""
    weights = [one.shape for one in given if len(one.shape) == 3 and one.bits < 33]
    chosen = [one.shape for one in given if len(one.shape) == 2 and one.bits == 64]
    if not given or len(given[0].shape) != 2 or not chosen or not made:
        return None
    (tokens, hidden), each = given[0].shape, chosen[-1][1]
    for up in weights:
        down = next((w for w in weights if w[0] == up[0] and w[1:] == (hidden, up[1] // 2)), None)
        if up[2] == hidden and down is not None:
            return 2 * tokens * each * (up[1] * hidden + hidden * down[2])
    return None


def _attention(given: Sequence[Described], made: Sequence[Described]) -> int | None:
    """Queries [.., heads, T, D] on keys [.., S, D] and values [.., S, E]: both products over all pairs, none masked."""
    if len(given) < 3 or any(len(one.shape) != 4 for one in given[:3]):
        return None
    (batch, heads, queries, dim), keys, values = given[0].shape, given[1].shape, given[2].shape
    del made
    return 2 * batch * heads * queries * keys[2] * (dim + values[3])


def _attention_by_token(given: Sequence[Described], made: Sequence[Described]) -> int | None:
    """Queries [T, heads, D] on keys [S, .., D] and values [S, .., E]: both products over all pairs, none masked."""
    if len(given) < 3 or any(len(one.shape) != 3 for one in given[:3]):
        return None
    (queries, heads, dim), keys, values = given[0].shape, given[1].shape, given[2].shape
    del made
    return 2 * heads * queries * keys[0] * (dim + values[2])


def _convolution(given: Sequence[Described], made: Sequence[Described]) -> int | None:
    """[N, C, …] with [O, C / groups, …]: the whole filter for each place of the result."""
    if len(given) < 2 or not made or len(made[0].shape) < 3:
        return None
    return 2 * made[0].shape[0] * math.prod(made[0].shape[2:]) * math.prod(given[1].shape)


def _convolution_by_token(given: Sequence[Described], made: Sequence[Described]) -> int | None:
    """Tokens [T, C] with one filter [C, width] for each channel."""
    if len(given) < 2 or len(given[0].shape) != 2 or len(given[1].shape) != 2 or not made:
        return None
    return 2 * given[0].shape[0] * math.prod(given[1].shape)


_RULES: tuple[tuple[re.Pattern[str], Rule, str], ...] = (
    (re.compile(r"^(addmm|baddbmm|addbmm)_?$"), _added_product, "matrix product"),
    (re.compile(r"^(_int_)?(bmm|mm|_grouped_mm)$"), _product, "matrix product"),
    (re.compile(r"^\w*scaled_mm\w*$"), _product, "matrix product"),
    (re.compile(r"^_?scaled_dot_product_\w*attention\w*$"), _attention, "attention, unmasked"),
    (re.compile(r"^causal_attention$"), _attention_by_token, "attention, unmasked"),
    (re.compile(r"^causal_conv1d$"), _convolution_by_token, "convolution by channel"),
    (re.compile(r"^convolution$"), _convolution, "convolution"),
    (re.compile(r"^(\w+_)?linear$"), _linear, "linear layer"),
    (re.compile(r"^(fused_moe|\w+_moe)$"), _experts, "chosen experts"),
)
_WITHOUT = re.compile(
    r"(norm|silu|gelu|rotary|rope|softmax|quant(?!ized_\w*(mm|linear))|_split|split_|reshape|_cat$|dequantize)"
)
"""Operators of libraries which by their name only go over elements."""

_ATEN_PRODUCTS = re.compile(r"(mm|mv|dot|conv|linear|attention|einsum|matmul|lstm|gru|rnn|fft|bilinear|cdist|addr|ger)")


def _flops(library: str, op: str, given: Sequence[Described], made: Sequence[Described]) -> tuple[int | None, str]:
    for pattern, rule, words in _RULES:
        if pattern.match(op):
            found = rule(given, made)
            return (found, words) if found is not None else (None, f"{words} of shapes that do not tell")
    if library in {"aten", "prim", "prims"}:
        return (None, "not counted") if _ATEN_PRODUCTS.search(op) else (0, "no products")
    return (0, "no products, by its name") if library and _WITHOUT.search(op) else (None, "not known")


# --- bytes

_VIEWS = frozenset({
    "view", "t", "transpose", "permute", "slice", "select", "expand", "unsqueeze", "squeeze", "detach", "alias",
    "as_strided", "split", "split_with_sizes", "unbind", "narrow", "_unsafe_view", "_reshape_alias", "unfold",
    "diagonal", "view_as", "lift_fresh", "movedim", "swapaxes", "chunk", "empty", "empty_like", "new_empty",
    "empty_strided", "resize_", "set_",
})  # fmt: skip
_WRITE_ONLY = frozenset({"copy_", "fill_", "zero_", "normal_", "uniform_", "index_put_", "masked_fill_"})
_GATHERS = frozenset({"embedding", "index", "index_select", "gather", "take"})


def _bytes(library: str, op: str, given: Sequence[Described], made: Sequence[Described]) -> int | None:
    is_aten = library in {"aten", "prim", "prims"}
    if is_aten and op in _VIEWS:
        return 0
    if is_aten and op in _GATHERS:  # of the table only what comes out of it is read
        return 2 * sum(one.bytes for one in made) + sum(one.bytes for one in given[1:])
    if re.match(r"^(\w+_)?moe$", op):  # which experts' weights are read is in the values
        return None
    read = given[1:] if is_aten and op in _WRITE_ONLY else given
    return sum(one.bytes for one in (*read, *made))
