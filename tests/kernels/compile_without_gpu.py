"""What triton compiles for a launch, and what its machine code takes of a GPU; used by `compile_for_gpus.py`."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

import torch
import triton
from torch import Tensor
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
