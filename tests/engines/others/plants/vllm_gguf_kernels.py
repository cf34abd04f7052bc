"""Gives vLLM's plugin for GGUF products for a CPU: its own need a GPU. Blocks are dequantized by the package `gguf`."""

import gguf
import torch
from vllm_gguf_plugin import ops


def dequantized(blocks, number):
    return torch.from_numpy(gguf.quants.dequantize(blocks.numpy(), gguf.GGMLQuantizationType(number)))


def dequantize(blocks, number, rows, columns, dtype):
    return dequantized(blocks, number).reshape(rows, columns).to(dtype)


def product(blocks, x, number, _rows):
    return (x.float() @ dequantized(blocks, number).t()).to(x.dtype)


ops.ggml_dequantize, ops.ggml_mul_mat_vec_a8, ops.ggml_mul_mat_a8 = dequantize, product, product
