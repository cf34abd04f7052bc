"""Times every triton kernel beside its torch reference on a GPU: `python tests/benchmarks/gpu_kernels.py [OPERATION…]`.

The shapes are those of Qwen3-Next-80B-A3B in bfloat16, for a prompt of 4096 tokens and for one token. Bandwidth counts
each argument and result once; TFLOP/s count the products the operation is defined by. Ends with 5 where no GPU is.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import torch
from torch import Tensor

from backends.native.kernels.choice import kernel
from backends.native.kernels.reference.ggml_types import BY_NAME

NO_GPU = 5
BLOCK = 128
GGUF = ("Q4_K", "Q6_K", "Q8_0")


@dataclass(frozen=True)
class Sizes:
    """Of one layer; `heads` are key heads of the delta net, which has twice as many value heads."""

    tokens: tuple[int, ...] = (4096, 1)
    hidden: int = 2048
    intermediate: int = 512
    experts: int = 512
    top_k: int = 10
    heads: int = 16
    head_dim: int = 128
    projection: int = 12288


@dataclass(frozen=True)
class Case:
    """One call; `flops` are those of its products, 0 where there are none."""

    op: str
    tokens: int
    arguments: tuple[Any, ...]
    flops: int = 0
    note: str = ""

    def moved_bytes(self, results: object) -> int:
        """What arguments and results take, each counted once."""
        found = results if isinstance(results, tuple) else (results,)
        return sum(part.numel() * part.element_size() for part in (*self.arguments, *found) if isinstance(part, Tensor))


@dataclass(frozen=True)
class Draw:
    """Random tensors on one device."""

    device: str

    def normal(self, *shape: int, dtype: torch.dtype = torch.bfloat16, std: float = 1.0) -> Tensor:
        """Normal values, in pieces of the first dimension: float32 of all experts would not fit."""
        out = torch.empty(*shape, dtype=dtype, device=self.device)
        for piece in out.split(max(1, shape[0] // 64)):
            piece.copy_(torch.randn(piece.shape, device=self.device) * std)
        return out

    def scales(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Positive values."""
        return (torch.rand(*shape, device=self.device) + 0.5).to(dtype)

    def integers(self, low: int, high: int, *shape: int, dtype: torch.dtype) -> Tensor:
        """Whole numbers from `low` to `high` - 1."""
        return torch.randint(low, high, shape, device=self.device, dtype=dtype)


def cases(sizes: Sizes, device: str) -> Iterator[Case]:
    """Every operation that has a triton kernel, for each number of tokens."""
    torch.manual_seed(0)
    draw = Draw(device)
    for tokens in sizes.tokens:
        yield from pointwise(sizes, tokens, draw)
        yield from delta_net(sizes, tokens, draw)
        yield from products(sizes, tokens, draw)
        yield from experts(sizes, tokens, draw)
    yield from dequantizations(sizes, draw)


def pointwise(sizes: Sizes, tokens: int, draw: Draw) -> Iterator[Case]:
    """Norms, rotary, activation and routing."""
    x, heads = draw.normal(tokens, sizes.hidden), draw.normal(tokens, 2 * sizes.heads, sizes.head_dim)
    angles = draw.normal(tokens, sizes.head_dim // 4)
    yield Case("rms_norm", tokens, (x, x[0], 1e-6, True))
    yield Case("rms_norm_gated", tokens, (heads, heads.clone(), heads[0, 0], 1e-6))
    yield Case("rotary", tokens, (heads, angles, angles.clone()))
    yield Case("silu_and_mul", tokens, (x,))
    yield Case("topk_softmax", tokens, (draw.normal(tokens, sizes.experts), sizes.top_k, True))
    yield Case("per_token_group_quant_fp8", tokens, (x, BLOCK))


def delta_net(sizes: Sizes, tokens: int, draw: Draw) -> Iterator[Case]:
    """What a gated delta net does between its projections."""
    heads, dim = sizes.heads, sizes.head_dim
    channels, v_heads = 4 * heads * dim, 2 * heads
    packed = draw.normal(tokens, 6 * heads * dim), draw.normal(tokens, 2 * v_heads)
    yield Case("fused_qkvzba_split_reshape_cat", tokens, (*packed, heads, v_heads, dim, dim))
    taps, before = draw.normal(channels, 4), draw.normal(channels, 3)
    yield Case("causal_conv1d", tokens, (draw.normal(tokens, channels), taps, before))
    rule = "gated_delta_rule" if tokens == 1 else "chunk_gated_delta_rule"
    gates = -draw.scales(tokens, v_heads), draw.scales(tokens, v_heads, dtype=torch.bfloat16) / 2
    state = draw.normal(v_heads, dim, dim, dtype=torch.float32)
    query, key, value = (draw.normal(tokens, count, dim) for count in (heads, heads, v_heads))
    yield Case(rule, tokens, (query, key, value, *gates, state), flops=6 * tokens * v_heads * dim * dim)


def products(sizes: Sizes, tokens: int, draw: Draw) -> Iterator[Case]:
    """Linear layers of each format."""
    rows, columns = sizes.projection, sizes.hidden
    x, flops = draw.normal(tokens, columns), 2 * tokens * rows * columns
    float8 = draw.normal(rows, columns, dtype=torch.float8_e4m3fn)
    blocks = draw.scales(-(-rows // BLOCK), -(-columns // BLOCK))
    yield Case("fp8_block_linear", tokens, (x, float8, blocks, [BLOCK, BLOCK], None), flops)
    yield Case("fp8_block_dynamic_linear", tokens, (x, float8, blocks, [BLOCK, BLOCK], None), flops)
    yield Case("fp8_linear", tokens, (x, float8, draw.scales(rows, 1), None, True, None), flops)
    int8, channel = draw.integers(-127, 128, rows, columns, dtype=torch.int8), draw.scales(rows, 1)
    yield Case("int8_linear", tokens, (x, int8, channel, None, None, None, True, None), flops)
    one, zero = draw.scales(1) / 50, draw.integers(0, 1, 1, dtype=torch.int8)
    bias = draw.integers(-9, 9, rows, dtype=torch.int32)
    yield Case("int8_deq_linear", tokens, (x, int8, one, zero.float(), bias, draw.scales(rows)), flops)
    nvfp4, mxfp4 = float4(sizes, draw)
    yield Case("nvfp4_linear", tokens, (x, *nvfp4, None, None), flops)
    yield Case("mxfp4_linear", tokens, (x, *mxfp4, False, None), flops)
    for name in GGUF:
        stored = BY_NAME[name]
        yield Case("gguf_linear", tokens, (x, ggml(sizes, draw, name), stored.number, None), flops, name)


def float4(sizes: Sizes, draw: Draw) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Weight and scales of NVFP4, and of MXFP4."""
    rows, columns = sizes.projection, sizes.hidden
    weight = draw.integers(0, 256, rows, columns // 2, dtype=torch.uint8)
    nvfp4 = weight, draw.scales(rows, columns // 16, dtype=torch.float8_e4m3fn), draw.scales(1)
    return nvfp4, (weight, draw.integers(120, 128, rows, columns // 32, dtype=torch.uint8))


def ggml(sizes: Sizes, draw: Draw, name: str) -> Tensor:
    """Blocks of a ggml type; bytes below 60 make float16 scales that are finite and small."""
    return draw.integers(0, 60, sizes.projection, BY_NAME[name].row_bytes(sizes.hidden), dtype=torch.uint8)


def dequantizations(sizes: Sizes, draw: Draw) -> Iterator[Case]:
    """Weights back to bfloat16."""
    nvfp4, mxfp4 = float4(sizes, draw)
    yield Case("dequantize_nvfp4", 0, (*nvfp4, torch.bfloat16))
    yield Case("dequantize_mxfp4", 0, (*mxfp4, torch.bfloat16))
    for name in GGUF:
        yield Case("dequantize_gguf", 0, (ggml(sizes, draw, name), BY_NAME[name].number, torch.bfloat16), note=name)


def experts(sizes: Sizes, tokens: int, draw: Draw) -> Iterator[Case]:
    """Routed experts, plain and in FP8 blocks."""
    count, hidden, inner = sizes.experts, sizes.hidden, sizes.intermediate
    flops = 2 * tokens * sizes.top_k * 3 * hidden * inner
    shapes = (count, 2 * inner, hidden), (count, hidden, inner)
    x, logits = draw.normal(tokens, hidden), draw.normal(tokens, count)
    weights, ids = kernel("topk_softmax", "reference")(logits, sizes.top_k, True)
    routing = weights.to(x.dtype), ids
    yield Case("fused_moe", tokens, (x, *(draw.normal(*shape, std=hidden**-0.5) for shape in shapes), *routing), flops)
    blocks = [
        part
        for shape in shapes
        for part in (
            draw.normal(*shape, dtype=torch.float8_e4m3fn),
            draw.scales(count, -(-shape[1] // BLOCK), -(-shape[2] // BLOCK)) * hidden**-0.5,
        )
    ]
    for op in ("fp8_block_moe", "fp8_block_dynamic_moe"):
        yield Case(op, tokens, (x, *blocks, [BLOCK, BLOCK], *routing), flops)


def relative_error(found: object, expected: object) -> float:
    """Of the first result."""
    pair = (part[0] if isinstance(part, tuple) else part for part in (found, expected))
    candidate, reference = (part.float() for part in pair if isinstance(part, Tensor))
    return float((candidate - reference).norm() / reference.norm())


def row(case: Case) -> str:
    """One line of the table: both implementations timed by events, medians with the L2 cache emptied before each."""
    from triton.testing import do_bench

    calls = [kernel(case.op, kind) for kind in ("reference", "triton")]
    expected, found = (call(*case.arguments) for call in calls)
    reference_ms, triton_ms = (
        do_bench(lambda call=call: call(*case.arguments), warmup=25, rep=200, return_mode="median") for call in calls
    )
    tflops = f"{case.flops / triton_ms / 1e9:.1f}" if case.flops else "–"
    what = f"`{case.op}`{' ' + case.note if case.note else ''}"
    return (
        f"| {what} | {case.tokens or '–'} | {reference_ms:.3f} | {triton_ms:.3f} | {reference_ms / triton_ms:.1f} × "
        f"| {case.moved_bytes(found) / triton_ms / 1e6:.0f} | {tflops} | {relative_error(found, expected):.1e} |"
    )


def main(wanted: list[str]) -> int:
    """Print the table of the operations `wanted`, or of all."""
    if not torch.cuda.is_available():
        print("gpu_kernels: torch finds no CUDA device; nothing was timed.", file=sys.stderr)
        print("  try: run it where torch.cuda.is_available() is true", file=sys.stderr)
        return NO_GPU
    import triton

    now = datetime.now(timezone.utc).date()
    print(f"{torch.cuda.get_device_name()}, {now}, torch {torch.__version__}, triton {triton.__version__}\n")
    print("| operator | tokens | reference ms | triton ms | faster | GB/s | TFLOP/s | relative error |")
    print("|---|---|---|---|---|---|---|---|")
    failed = 0
    for case in cases(Sizes(), "cuda"):
        if wanted and case.op not in wanted:
            continue
        try:
            print(row(case), flush=True)
        except Exception as error:  # noqa: BLE001 - the table goes on, and the exit code says that a row is missing
            failed += 1
            print(f"| `{case.op}` {case.note} | {case.tokens} | {type(error).__name__}: {error} |", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
