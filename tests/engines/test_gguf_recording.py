"""Recordings of GGUF loads, rebuilt from the files: which bytes of which tensor each parameter was filled from."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import gguf
import numpy as np
import pytest
from safetensors.torch import load_file

from backends.native.checkpoint.gguf_synthesize import write_gguf
from backends.native.models import llama, qwen3_5_moe

SMALL = {
    "num_hidden_layers": 2,
    "full_attention_interval": 2,
    "vocab_size": 300,
    "num_experts": 4,
    "rope_scaling": None,
}
RANKS = 2
# Rows of query and key heads, or of value heads: the file has them in another order than the model.
REARRANGED = ("attn_q.", "attn_k.", "attn_qkv.", "attn_gate.", "ssm_a", "ssm_b", "ssm_d", "ssm_conv", "ssm_out")


def boxed(start: list[int], length: list[int]) -> tuple[slice, ...]:
    return tuple(slice(a, a + n) for a, n in zip(start, length, strict=True))


@pytest.fixture(scope="module", params=[llama, qwen3_5_moe], ids=lambda module: module.ARCHITECTURES[-1])
def recorded(request, run_host, tmp_path_factory):
    """The file, the run that was watched, and the parameters it ended with."""
    config = request.param.tiny_config()
    fields = config.get("text_config", config)
    fields.update({key: value for key, value in SMALL.items() if key in fields})
    folder = tmp_path_factory.mktemp("gguf")
    file, saved = write_gguf(folder / "model.gguf", config, seed=1), folder / "saved.safetensors"
    code = (f"options['model'] = {str(file)!r}", "", "")
    watched = run_host("ledger", tp=RANKS, code=code, save=str(saved))
    assert watched.code == 0, watched.err
    return file, watched, load_file(saved)


def test_every_tensor_of_the_file_is_listed_and_read_once_under_its_own_name(recorded):
    file, run, _ = recorded
    stored = {t.name: (t.tensor_type.name, int(t.data_offset), int(t.n_bytes)) for t in gguf.GGUFReader(file).tensors}
    listed = {e.body["checkpoint_name"]: e.body for e in run.of("tensor.listed")}
    found = {name: (body["dtype"], body["begin"], body["end"] - body["begin"]) for name, body in listed.items()}
    assert found == stored
    reads = Counter(event.body["checkpoint_name"] for event in run.of("tensor.read"))
    assert reads == Counter(dict.fromkeys(stored, 1))
    assert run.of("inspector.faulted", "tracepoint.missing") == []


def taken(body, source: np.ndarray) -> np.ndarray:
    """The elements of a tensor that the map of a write names."""
    places = np.full(body["length"], body["source_offset"])
    for d, (n, stride) in enumerate(zip(body["length"], body["source_strides"], strict=True)):
        places += (np.arange(n) * stride).reshape([-1 if d == k else 1 for k in range(len(body["length"]))])
    return source.reshape(-1)[places]


def test_written_boxes_hold_the_bytes_that_they_name(recorded):
    file, run, parameters = recorded
    stored = {tensor.name: tensor.data for tensor in gguf.GGUFReader(Path(file)).tensors}
    calls = {event.seq: event.body for event in run.of("loader.called")}
    compared, rearranged = 0, set()
    for write in run.of("weight.written"):
        body, name = write.body, write.body["checkpoint_name"] or calls[write.parent]["checkpoint_name"]
        if not body["parameter"].endswith("qweight"):
            continue
        if body["source"] == "constant":  # rows past the vocabulary
            compared += body["elements"]
            continue
        found = parameters[f"{write.rank}/{body['parameter']}"][boxed(body["start"], body["length"])]
        assert found.numpy().tobytes() == taken(body, stored[name]).tobytes(), (body["parameter"], name)
        compared += found.numel()
        short = name.partition("blk.")[2].partition(".")[2]
        rearranged |= {short} if short.startswith(REARRANGED) else set()
    assert compared == sum(p.numel() for n, p in parameters.items() if n.endswith("qweight"))
    assert len(rearranged) >= 2


def test_what_was_computed_before_the_call_names_no_place_on_disk(recorded):
    _, run, _ = recorded
    calls = {event.seq: event.body for event in run.of("loader.called")}
    for write in run.of("weight.written"):
        is_computed = calls[write.parent]["checkpoint_name"].endswith("ssm_a")
        assert is_computed <= (
            write.body["source"].startswith("made before the call") and not write.body["source_start"]
        )
    assert any(c["checkpoint_name"].endswith("ssm_a") for c in calls.values()) != _is_llama(run)


def _is_llama(run) -> bool:
    (opened,) = run.of("checkpoint.opened")
    return opened.body["architecture"].startswith("llama")
