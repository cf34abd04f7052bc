"""Log-probabilities of GGUF files against llama.cpp, which reads the same files by itself."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from backends.native.checkpoint.gguf_synthesize import all_of, mixed_types, write_gguf

xllamacpp = pytest.importorskip("xllamacpp", reason="the peer is not installed: pip install xllamacpp")


def _checkpoints():
    path = Path(__file__).with_name("gguf_checkpoints.py")
    spec = importlib.util.spec_from_file_location("loadscope_tests_gguf_checkpoints", path)
    module = sys.modules.setdefault(spec.name, importlib.util.module_from_spec(spec))
    spec.loader.exec_module(module)
    return module


tiny = _checkpoints()
VOCABULARY = 500


def log_probabilities(file: Path) -> dict[int, float]:
    """Of every token after PROMPT, by llama.cpp."""
    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.n_ctx, params.n_parallel, params.cpuparams.n_threads = 64, 1, 1
    params.warmup, params.n_gpu_layers = False, 0
    request = {"prompt": list(tiny.PROMPT), "n_predict": 1, "temperature": 0, "n_probs": VOCABULARY}
    answer = xllamacpp.Server(params).handle_completions(request)
    (choice,) = answer["choices"]
    return {entry["id"]: entry["logprob"] for entry in choice["logprobs"]["content"][0]["top_logprobs"]}


# Where experts are chosen or a delta net carries its state on, the peer's half-precision products are amplified, so
# that what is compared is the arithmetic in float32; F16 is for the others.
CASES = [
    *((architecture, "F32", 0.01) for architecture in tiny.ARCHITECTURES),
    *((architecture, "F16", 0.01) for architecture in ("llama", "qwen3", "qwen3_moe")),
    *((architecture, "Q8_0", 0.2) for architecture in ("llama", "qwen3", "qwen3_moe")),
    *((architecture, "mixed", 0.2) for architecture in ("llama", "qwen3_moe")),
]


@pytest.mark.parametrize(("architecture", "type_name", "tolerance"), CASES)
def test_every_token_is_as_likely_as_the_peer_says(tmp_path, architecture, type_name, tolerance):
    types = mixed_types if type_name == "mixed" else all_of(type_name)
    file = write_gguf(tmp_path / "model.gguf", tiny.gguf_config(architecture), seed=1, types=types)
    found = tiny.logits(file)[-1].log_softmax(-1)
    expected = log_probabilities(file)
    assert len(expected) == VOCABULARY
    assert max(abs(found[token].item() - value) for token, value in expected.items()) < tolerance
    assert found.std() > 0.1
