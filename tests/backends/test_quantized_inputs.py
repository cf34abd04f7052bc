"""FP8 blocks with inputs quantized as engines do on GPUs: when asked for, and where the checkpoint says so."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from backends.native.checkpoint.synthesize import write_checkpoint
from backends.native.config import ModelConfig
from backends.native.loader import LoadOptions, load
from backends.native.models import qwen3_moe

SIZES = {"num_hidden_layers": 1, "vocab_size": 64, "hidden_size": 64, "intermediate_size": 64, "head_dim": 16,
         "num_experts": 4, "moe_intermediate_size": 32}  # fmt: skip
BLOCKS = {"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [16, 16]}
TOKENS = {"num_bits": 8, "type": "float", "strategy": "group", "group_size": 16, "dynamic": True}


def groups(inputs):
    group = {"targets": ["Linear"], "weights": BLOCKS, "input_activations": inputs}
    return {"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": {"group_0": group}}


METHODS = {  # key of the ignore list, quantization_config, whether it says that inputs are quantized
    "fp8": ("modules_to_not_convert", {"quant_method": "fp8", "activation_scheme": "dynamic",
                                       "weight_block_size": [16, 16]}, True),
    "inputs in groups": ("ignore", groups(TOKENS), True),
    "weights only": ("ignore", groups(None), False),
    "mxfp4": ("modules_to_not_convert", {"quant_method": "mxfp4"}, False),
}  # fmt: skip


class Names(TorchDispatchMode):
    """Notes the operators that are called."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.add(func.name())
        return func(*args, **(kwargs or {}))


def write(folder, method):
    key, quantization, _ = METHODS[method]
    config = qwen3_moe.tiny_config() | SIZES
    kept = qwen3_moe.modules_to_not_convert(ModelConfig.from_fields(config))
    write_checkpoint(
        folder, config | {"quantization_config": quantization | {key: kept}}, seed=1, max_file_bytes=1 << 20
    )


def run(folder, *, quantizes_inputs):
    """The logits, and the operations that were called."""
    options = LoadOptions(dtype=torch.float32, kernels="reference", quantizes_inputs=quantizes_inputs)
    model = load(folder, options).model(0)
    with Names() as names:
        logits = model(torch.arange(1, 9), torch.arange(8))
    return logits, names.seen


@pytest.mark.parametrize("method", METHODS)
def test_inputs_are_quantized_where_that_is_asked_for_and_declared(tmp_path, method):
    write(tmp_path, method)
    (plain, plain_ops), (quantized, quantized_ops) = (run(tmp_path, quantizes_inputs=is_asked) for is_asked in (0, 1))
    dynamic = {"native::fp8_block_dynamic_linear", "native::fp8_block_dynamic_moe"}
    assert not plain_ops & dynamic
    if METHODS[method][2]:
        assert quantized_ops >= dynamic
        assert 1e-4 < (quantized - plain).norm() / plain.norm() < 0.1
    else:
        assert not quantized_ops & dynamic
        assert torch.equal(quantized, plain)
