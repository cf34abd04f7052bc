"""Tiny checkpoints shared by the tests of the native stack."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path

import pytest
import torch

from backends.native.checkpoint.synthesize import write_checkpoint
from backends.native.config import ModelConfig
from backends.native.models import qwen3_next

MAX_FILE_BYTES = 16 << 20
if importlib.util.find_spec("triton") and not torch.cuda.is_available():
    # Triton decorates its own functions when it is first imported; transformers imports it, then without interpreter.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        importlib.import_module("triton")


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    # Rank threads have a pool each, whose idle workers spin: more threads are slower on a busy machine.
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def small_module_config() -> dict[str, object]:
    """Two layers, one of each kind, small enough to be written in each test."""
    return qwen3_next.tiny_config() | {
        "num_hidden_layers": 2,
        "full_attention_interval": 2,
        "vocab_size": 100,
        "hidden_size": 64,
        "intermediate_size": 64,
        "head_dim": 16,
        "linear_key_head_dim": 16,
        "linear_num_value_heads": 8,
        "linear_value_head_dim": 8,
        "num_experts": 4,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 32,
    }


@pytest.fixture
def small_config(small_module_config: dict[str, object]) -> dict[str, object]:
    """A copy that a test may change."""
    return dict(small_module_config)


def quantized(config: dict[str, object], kept: list[str] | None = None) -> dict[str, object]:
    """That config with block-quantized weights, as published: whole packed projections and gates left out."""
    if kept is None:
        kept = qwen3_next.modules_to_not_convert(ModelConfig.from_fields(config))
    return config | {
        "quantization_config": {
            "quant_method": "fp8",
            "activation_scheme": "dynamic",
            "fmt": "e4m3",
            "weight_block_size": [128, 128],
            "modules_to_not_convert": kept,
        }
    }


@pytest.fixture(scope="session")
def as_fp8():
    return quantized


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    return write_checkpoint(folder, qwen3_next.tiny_config(), seed=0, max_file_bytes=MAX_FILE_BYTES)


@pytest.fixture(scope="session")
def tiny_fp8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny_fp8")
    return write_checkpoint(folder, quantized(qwen3_next.tiny_config()), seed=0, max_file_bytes=MAX_FILE_BYTES)
