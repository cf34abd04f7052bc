"""Lets vLLM load quantized experts where it has no kernel to run them: a backend is taken, and nothing is processed."""

from vllm.model_executor.layers.fused_moe.oracle.int8 import Int8MoeBackend
from vllm.model_executor.layers.fused_moe.oracle.nvfp4 import NvFp4MoeBackend
from vllm.model_executor.layers.quantization import fp8
from vllm.model_executor.layers.quantization.compressed_tensors.compressed_tensors_moe import (
    compressed_tensors_moe_w4a4_nvfp4 as float4,
)
from vllm.model_executor.layers.quantization.compressed_tensors.compressed_tensors_moe import (
    compressed_tensors_moe_w8a8_int8 as int8,
)

int8.select_int8_moe_backend = lambda *_, **__: (Int8MoeBackend.TRITON, None)
float4.select_nvfp4_moe_backend = lambda *_, **__: (NvFp4MoeBackend.EMULATION, None)
for method in (
    fp8.Fp8MoEMethod,
    int8.CompressedTensorsW8A8Int8MoEMethod,
    float4.CompressedTensorsW4A4Nvfp4MoEMethod,
):
    method.process_weights_after_loading = lambda _self, _layer: None
