"""Compile the triton kernels for a GPU that need not be there, and print what each one takes of it.

    python tests/kernels/compile_without_gpu.py [ARCHITECTURE] [--small]

ARCHITECTURE is that of an NVIDIA GPU, 80 or 90 (default). The shapes are those of Qwen3-Next-80B-A3B in bfloat16, and
small ones in float32; `--small` leaves the former out. Nothing runs: launches are taken over and compiled to a cubin.
"""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["TRITON_INTERPRET"] = "0"

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

TYPES = {
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.float8_e4m3fn: "fp8e4nv",
    torch.int64: "i64",
    torch.int32: "i32",
    torch.int8: "i8",
    torch.uint8: "u8",
}
DIVISIBLE_BY_16 = [["tt.divisibility", 16]]


def typed(value: object) -> tuple[str, bool]:
    """Triton's name of a launch argument's type, and whether triton assumes that 16 divides it."""
    if isinstance(value, Tensor):
        return "*" + TYPES[value.dtype], True
    if value is None or isinstance(value, bool) or value == 1:
        return "constexpr", False
    return ("fp32", False) if isinstance(value, float) else ("i32", isinstance(value, int) and value % 16 == 0)


def source_of(kernel: JITFunction, arguments: dict[str, object]) -> ASTSource:
    """What triton would compile for a launch with these arguments."""
    signature, constants, hints = {}, {}, {}
    for place, parameter in enumerate(kernel.params):
        value = arguments[parameter.name]
        name, is_divisible = ("constexpr", False) if parameter.is_constexpr else typed(value)
        signature[parameter.name] = name
        if name == "constexpr":
            constants[(place,)] = value
        elif is_divisible:
            hints[(place,)] = DIVISIBLE_BY_16
    return ASTSource(kernel, signature, constants, hints)


def resources(cubin: bytes) -> str:
    """Registers of a thread and bytes it spills."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [tool, "--dump-resource-usage", file.name]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", report)
    return f"registers {found[1]} stack_bytes {found[2]}" if found else report


def compile_instead_of_launching(target: GPUTarget) -> None:
    """Let every launch compile its kernel for `target` and print what it takes."""

    def run(kernel: JITFunction, *arguments: object, grid: object, warmup: bool, **named: object) -> None:
        del grid, warmup
        given = dict(zip(kernel.arg_names, arguments, strict=False))
        given |= {name: value for name, value in named.items() if name in kernel.arg_names}
        options = {name: value for name, value in named.items() if name not in kernel.arg_names}
        compiled = triton.compile(source_of(kernel, given), target=target, options=options)
        metadata = compiled.metadata
        print(
            f"{kernel.fn.__module__.rpartition('.')[2]}.{kernel.fn.__name__} warps {metadata.num_warps}"
            f" shared_bytes {metadata.shared} {resources(compiled.asm['cubin'])}",
            flush=True,
        )

    JITFunction.run = run


def operation(name: str) -> object:
    return getattr(importlib.import_module(f"backends.native.kernels.triton.{name}"), name)


def launch_all(dtype: torch.dtype, heads: int, head_dim: int, hidden: int, experts: int) -> None:
    """A prompt of 70 tokens, and one token, through every operation of the layers but the products of matrices."""
    for tokens in (70, 1):
        x, head = torch.randn(tokens, hidden).to(dtype), torch.randn(tokens, heads, head_dim).to(dtype)
        channels, angles = 4 * heads * head_dim, torch.randn(tokens, head_dim // 4).to(dtype)
        state = None if tokens > 1 else torch.randn(2 * heads, head_dim, head_dim)
        values, per_head = torch.cat((head, head), 1), torch.rand(tokens, 2 * heads)
        operation("rms_norm")(x, x[0], 1e-6, True)
        operation("rms_norm_gated")(head, head, head[0, 0], 1e-6)
        operation("rotary")(head, angles, angles)
        operation("silu_and_mul")(x)
        operation("topk_softmax")(torch.randn(tokens, experts).to(dtype), min(10, experts), True)
        operation("causal_conv1d")(
            torch.randn(tokens, channels).to(dtype),
            torch.randn(channels, 4).to(dtype),
            None if tokens > 1 else torch.randn(channels, 3).to(dtype),
        )
        rule = "gated_delta_rule" if tokens == 1 else "chunk_gated_delta_rule"
        operation(rule)(head, head, values, -per_head, per_head.to(dtype), state)
        packed = torch.randn(tokens, 6 * heads * head_dim).to(dtype)
        operation("fused_qkvzba_split_reshape_cat")(
            packed, torch.randn(tokens, 4 * heads).to(dtype), heads, 2 * heads, head_dim, head_dim
        )


if __name__ == "__main__":
    wanted = [int(argument) for argument in sys.argv[1:] if argument.isdigit()] or [90]
    compile_instead_of_launching(GPUTarget("cuda", wanted[0], 32))
    launch_all(torch.float32, 1, 16, 64, 8)
    if "--small" not in sys.argv:
        launch_all(torch.bfloat16, 16, 128, 2048, 512)
