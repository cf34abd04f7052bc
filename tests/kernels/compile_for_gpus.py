"""Compiles the launches of triton kernels for GPUs that need not be there: `python compile_for_gpus.py cubin 80 90`.

The kernels' own functions are called with tensors of the meta device, and what they launch is compiled, as far as
`ttir` (the compiler has understood and checked it: quick) or `cubin` (machine code, about a second each, with what it
takes of the GPU). Prints one line per operation and capability; ends with 1 where something does not compile.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import triton
from compile_without_gpu import resources, source_of
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import CUDABackend
from triton.runtime.jit import JITFunction

from backends.native.kernels.choice import kernel
from backends.native.kernels.reference.ggml_types import BY_NAME
from backends.native.kernels.triton import block_product

T, K, N, E = 100, 512, 300, 8
FLOAT8, FLOAT32, UINT8, INT8, INT32 = torch.float8_e4m3fn, torch.float32, torch.uint8, torch.int8, torch.int32


class CompiledFarEnoughError(Exception):
    """The stages that were asked for are done."""


def empty(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.empty(*shape, dtype=dtype, device="meta")


def calls() -> list[tuple[str, tuple[Any, ...]]]:
    """(operation, arguments) of models in bfloat16; what differs in float32 is there twice."""
    x, one, block = empty(T, K), empty(1, dtype=FLOAT32), [128, 128]
    weight8, scale8 = empty(N, K, dtype=FLOAT8), empty(3, 4, dtype=FLOAT32)
    experts = (empty(E, 512, K, dtype=FLOAT8), empty(E, 4, 4, dtype=FLOAT32))
    experts += (empty(E, K, 256, dtype=FLOAT8), empty(E, 4, 2, dtype=FLOAT32))
    # The ids are on the CPU: sorting them on the meta device imports a compiler that takes as long as all kernels.
    routing = (empty(T, 4), torch.zeros(T, 4, dtype=torch.int64))
    int8, channels, weight4 = empty(N, K, dtype=INT8), empty(N, 1, dtype=FLOAT32), empty(N, K // 2, dtype=UINT8)
    nvfp4, mxfp4 = empty(N, K // 16, dtype=FLOAT8), empty(N, K // 32, dtype=UINT8)
    q, k, v = empty(T, 4, 128), empty(T, 2, 128), empty(T, 8, 128)
    gates, state = (empty(T, 8), empty(T, 8)), empty(8, 128, 128, dtype=FLOAT32)
    return [
        ("per_token_group_quant_fp8", (x, 128)),
        ("fp8_block_linear", (x, weight8, scale8, block, empty(N))),
        ("fp8_block_linear", (x.float(), weight8, scale8, block, None)),
        ("fp8_block_dynamic_linear", (x, weight8, scale8, block, None)),
        ("fp8_linear", (x, weight8, empty(N, 1, dtype=FLOAT32), None, True, empty(N))),
        ("fp8_linear", (x, weight8, one, one, True, None)),
        ("fused_moe", (x, empty(E, 512, K), empty(E, K, 256), *routing)),
        ("fp8_block_moe", (x, *experts, block, *routing)),
        ("fp8_block_dynamic_moe", (x, *experts, block, *routing)),
        ("int8_linear", (x, int8, channels, None, None, None, True, empty(N))),
        ("int8_linear", (x, int8, channels, channels, one, empty(1, dtype=INT8), True, None)),
        ("int8_deq_linear", (x, int8, one, one, empty(N, dtype=INT32), empty(N, dtype=FLOAT32))),
        ("nvfp4_linear", (x, weight4, nvfp4, one, one, empty(N))),
        ("nvfp4_linear", (x.float(), weight4, nvfp4, one, None, None)),
        ("mxfp4_linear", (x, weight4, mxfp4, True, None)),
        ("dequantize_nvfp4", (weight4, nvfp4, one, torch.bfloat16)),
        ("dequantize_mxfp4", (weight4, mxfp4, torch.bfloat16)),
        *[call for name in ("Q5_1", "Q8_0", "Q3_K", "Q5_K", "Q6_K", "IQ4_XS", "MXFP4") for call in gguf_calls(x, name)],
        ("rms_norm", (x, empty(K), 1e-6, True)),
        ("rms_norm_gated", (v, v, empty(128), 1e-6)),
        ("silu_and_mul", (x,)),
        ("rotary", (q, empty(T, 32), empty(T, 32))),
        ("topk_softmax", (empty(T, 60), 4, True)),
        ("causal_conv1d", (x, empty(K, 4), None)),
        ("causal_conv1d", (x, empty(K, 4), empty(K, 3))),
        ("gated_delta_rule", (k, k, v, *gates, None)),
        ("gated_delta_rule", (k, k, v, *gates, state)),
        ("chunk_gated_delta_rule", (k, k, v, *gates, state)),
        ("fused_qkvzba_split_reshape_cat", (empty(T, 4 * (2 * 128 + 4 * 128)), empty(T, 16), 4, 8, 128, 128)),
    ]


def gguf_calls(x: torch.Tensor, name: str) -> list[tuple[str, tuple[Any, ...]]]:
    known = BY_NAME[name]
    blocks = empty(N, known.row_bytes(K), dtype=UINT8)
    product = [("gguf_linear", (x, blocks, known.number, None))] if name in ("Q8_0", "Q5_K") else []
    return [("dequantize_gguf", (blocks, known.number, torch.bfloat16)), *product]


def compile_launch(capability: int, launched: list[str], function: Any, *args: Any, grid: Any, warmup: bool, **kw: Any):
    """Stands in for `JITFunction.run`."""
    del grid, warmup
    options = {name: value for name, value in kw.items() if name not in function.arg_names}
    values = dict(zip(function.arg_names, args, strict=False)) | {name: kw[name] for name in kw.keys() - options.keys()}
    launched.append(function.__name__)
    try:
        compiled = triton.compile(
            source_of(function, values), target=GPUTarget("cuda", capability, 32), options=options
        )
    except CompiledFarEnoughError:
        return
    launched.append(f"(shared_bytes {compiled.metadata.shared} {resources(compiled.asm['cubin'])})")


def stop_after_ttir(add_stages: Callable[..., None], backend: Any, stages: dict[str, Any], *rest: Any) -> None:
    def stop(*_: object) -> None:
        raise CompiledFarEnoughError

    add_stages(backend, stages, *rest)
    stages["ttgir"] = stop


def main(stage: str, *capabilities: str) -> int:
    if stage == "ttir":
        add_stages = CUDABackend.add_stages
        CUDABackend.add_stages = lambda *args: stop_after_ttir(add_stages, *args)
    failed = 0
    for capability in map(int, capabilities):
        launched: list[str] = []
        JITFunction.run = lambda self, *args, **kw: compile_launch(capability, launched, self, *args, **kw)  # noqa: B023
        block_product.multiplies_float8 = partial(lambda known, _: known >= 89, capability)
        for op, arguments in calls():
            launched.clear()
            try:
                kernel(op, "triton")(*arguments)
                print(capability, op, "ok", *launched, flush=True)
            except Exception as error:  # noqa: BLE001 - the compiler raises anything; all of it is printed
                failed += 1
                print(capability, op, "failed", type(error).__name__, error, error.__cause__, flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
