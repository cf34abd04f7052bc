"""W8A8 checkpoints on the simulated NPU beside the CPU: the same layers and the same logits, within bounds."""

from __future__ import annotations

import pytest
import torch

from backends.native.checkpoint.synthesize import write_checkpoint
from backends.native.generate import generate
from backends.native.layers.linear import LinearBase
from backends.native.layers.moe import FusedMoE
from backends.native.loader import Loaded, LoadOptions, load
from backends.native.parallel.lockstep import run_ranks

MAX_FILE_BYTES = 16 << 20
FRACTAL_NZ = 29
COMPRESSED = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "ignore": ["lm_head"],
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {"num_bits": 8, "type": "int", "strategy": "channel", "symmetric": True, "dynamic": False},
            "input_activations": {
                "num_bits": 8,
                "type": "int",
                "strategy": "token",
                "symmetric": True,
                "dynamic": True,
            },
        }
    },
}
CASES = {
    "compressed-tensors": (COMPRESSED, "float16"),
    "modelslim static": ({"quant_method": "modelslim", "model_quant_type": "W8A8"}, "bfloat16"),
    "modelslim static, half": ({"quant_method": "modelslim", "model_quant_type": "W8A8"}, "float16"),
    "modelslim dynamic": ({"quant_method": "modelslim", "model_quant_type": "W8A8_DYNAMIC"}, "bfloat16"),
}
LINEAR_BOUND = {"float16": 2**-9, "bfloat16": 2**-8}
"""Of the largest output: one rounding, and in float16 the scales of which 10 bits are read."""
EXPERTS_BOUND = {"float16": 2**-8, "bfloat16": 2**-6}
"""Two products, of which each has its scales rounded to bfloat16 there."""
LOGITS_BOUND = 0.06
PROMPT = torch.arange(3, 15)


@pytest.fixture(scope="module", params=CASES)
def checkpoint(request, tmp_path_factory, small_module_config):
    quantization, dtype = CASES[request.param]
    # All experts are chosen: a tie that falls otherwise would compare different experts.
    config = small_module_config | {"num_experts_per_tok": 4, "quantization_config": quantization, "dtype": dtype}
    folder = tmp_path_factory.mktemp("w8a8")
    return write_checkpoint(folder, config, seed=0, max_file_bytes=MAX_FILE_BYTES), dtype


@pytest.fixture(params=[1, 4])
def pair(request, checkpoint) -> tuple[Loaded, Loaded]:
    folder, _ = checkpoint
    devices = ("cpu", "simulated-npu")
    first, second = (load(folder, LoadOptions(tp_size=request.param, device=device)) for device in devices)
    return first, second


def inputs(layer: LinearBase | FusedMoE, dtype: torch.dtype) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Nine tokens for one rank's layer, and for experts two of them chosen by each."""
    generator = torch.Generator().manual_seed(0)
    weight = layer.w13_weight if isinstance(layer, FusedMoE) else layer.weight
    x = torch.randn(9, weight.shape[-1], generator=generator).to(dtype)
    if not isinstance(layer, FusedMoE):
        return x, {}
    chosen = torch.stack([torch.randperm(layer.num_experts, generator=generator)[:2] for _ in x])
    return x, {"topk_weights": torch.rand(9, 2, generator=generator).to(dtype), "topk_ids": chosen}


@torch.no_grad()
def layer_error(reference: LinearBase | FusedMoE, candidate: LinearBase | FusedMoE, dtype: torch.dtype) -> float:
    x, chosen = inputs(reference, dtype)
    expected = reference.quant_method.apply(reference, x, **chosen).float()
    moved = {name: value.to("npu") for name, value in chosen.items()}
    found = candidate.quant_method.apply(candidate, x.to("npu"), **moved)
    assert found.device.type == "npu"
    return float((found.cpu().float() - expected).abs().max() / expected.abs().max())


def logits(loaded: Loaded) -> torch.Tensor:
    ids, positions = PROMPT.to(loaded.device), torch.arange(PROMPT.numel()).to(loaded.device)
    ranks = run_ranks(loaded.tp_size, lambda rank: loaded.model(rank)(ids, positions, None))
    return ranks[0].cpu().float()


def test_every_layer_of_every_rank_and_the_logits_equal_the_cpu_within_the_formats_bound(pair, checkpoint):
    cpu, npu = pair
    dtype = checkpoint[1]
    compared = 0
    for rank in range(cpu.tp_size):
        candidates = dict(npu.model(rank).named_modules())
        for name, module in cpu.model(rank).named_modules():
            if isinstance(module, LinearBase | FusedMoE):
                bound = (EXPERTS_BOUND if isinstance(module, FusedMoE) else LINEAR_BOUND)[dtype]
                assert layer_error(module, candidates[name], getattr(torch, dtype)) <= bound, name
                compared += 1
    assert compared == 15 * cpu.tp_size
    expected = logits(cpu)
    assert (logits(npu) - expected).norm() / expected.norm() <= LOGITS_BOUND


def test_weights_are_read_in_blocks_and_tokens_are_generated(checkpoint):
    loaded = load(checkpoint[0], LoadOptions(device="simulated-npu"))
    model = loaded.model(0)
    formats = {name: torch.ops.npu.get_npu_format(parameter) for name, parameter in model.named_parameters()}
    qkvz = next(name for name in formats if name.endswith("in_proj_qkvz.weight"))
    assert formats[qkvz] == FRACTAL_NZ
    assert formats["lm_head.weight"] != FRACTAL_NZ
    new_ids = generate(loaded, [5, 6, 7], 3)
    assert len(new_ids) == 3
    assert all(0 <= token < 100 for token in new_ids)
