"""Loads a model with the vLLM of this Python on a CPU and generates a few tokens; every rank in a process of its own.

vLLM itself is not changed. With several ranks each is a whole engine, as under torchrun: vLLM's "external launcher".
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import runpy
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "",
    "GLOO_SOCKET_IFNAME": "lo",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}
LONGEST_TOKENS = 128
KV_CACHE_BYTES = 256 << 20
PATIENCE_S = 20.0


def main(words: list[str]) -> int:
    """Load one rank, or start a process for each."""
    asked = _parsed(words)
    if asked.tp > 1 and "RANK" not in os.environ:
        return _all_ranks(asked.tp)
    os.environ.update({name: value for name, value in ENVIRONMENT.items() if name not in os.environ})
    load(asked, int(os.environ.get("RANK", "0")))
    return 0


def _parsed(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="loadscope trace … --engine vllm --", description=__doc__)
    parser.add_argument("model", help="the checkpoint's folder")
    parser.add_argument("--tp", type=int, default=1, metavar="N", help="tensor parallel size")
    parser.add_argument("--rank", default="all", metavar="all", help="all ranks: vLLM has none that loads alone")
    parser.add_argument("--prompt-ids", default="", metavar="1,2,3", help="token ids to run after the load")
    parser.add_argument("--max-new-tokens", type=int, default=0, metavar="N", help="tokens to generate, 0 for none")
    parser.add_argument("--quantization", metavar="NAME", help="as vLLM's own option")
    parser.add_argument("--load-format", default="auto", metavar="NAME", help="as vLLM's own option")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=JSON", help="any argument of vllm.LLM")
    parser.add_argument(
        "--before", action="append", default=[], metavar="FILE", help="run this Python file before the model is built"
    )
    parser.add_argument("--after", metavar="FILE", help="run this Python file afterwards; it has `model` and `rank`")
    asked = parser.parse_args(words)
    if asked.rank != "all" and asked.tp > 1:
        parser.error(f"--rank {asked.rank}: the ranks of vLLM wait for each other, leave --rank away")
    return asked


def _all_ranks(tp: int) -> int:
    """One process a rank, all at once; the code of the first that fails, and the others are ended then."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {**os.environ, "WORLD_SIZE": str(tp), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    # The very command that started this one, so that the probe is armed in the same way.
    ranks = [
        subprocess.Popen(list(sys.orig_argv), env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(tp)
    ]
    while any(rank.poll() is None for rank in ranks) and not any(rank.poll() for rank in ranks):
        time.sleep(0.05)
    code = next((code for code in (rank.poll() for rank in ranks) if code), 0)
    for rank in ranks:
        _end(rank)
    return code if code >= 0 else 128 - code


def _end(rank: subprocess.Popen[bytes]) -> None:
    """Let a rank whose partner has gone come to its own end first: what it says then is recorded too."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        rank.wait(PATIENCE_S)
    rank.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        rank.wait(PATIENCE_S)
    rank.kill()
    rank.wait()


def load(asked: argparse.Namespace, rank: int) -> Any:
    """Build and load one rank and generate; returns vLLM's engine. Raises what vLLM raises."""
    import vllm  # the probe begins here

    if asked.tp > 1:
        _meet_at_port()
    for file in asked.before:
        runpy.run_path(file)
    engine = vllm.LLM(**_options(asked))
    model = _model_of(engine)
    print(f"rank {rank} of {asked.tp}: {type(model).__name__} is loaded", flush=True)
    tokens = _generate(engine, asked)
    if asked.after:
        runpy.run_path(asked.after, {"model": model, "rank": rank, "tokens": tokens})
    return engine


def _meet_at_port() -> None:
    """Let the ranks meet at a port: vLLM names their shared memory after it, and otherwise all alike."""
    from vllm.v1.executor.uniproc_executor import ExecutorWithExternalLauncher

    place = f"tcp://{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    rank, local_rank = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    setattr(ExecutorWithExternalLauncher, "_distributed_args", lambda _: (place, rank, local_rank))  # noqa: B010


def _options(asked: argparse.Namespace) -> dict[str, Any]:
    options: dict[str, Any] = {
        "model": asked.model,
        "tensor_parallel_size": asked.tp,
        "quantization": asked.quantization,
        "load_format": asked.load_format,
        "skip_tokenizer_init": True,
        "enforce_eager": True,
        "max_model_len": LONGEST_TOKENS,
        "max_num_seqs": 2,
        "seed": 0,
        # A size of its own: vLLM runs the model to find one, and that pass would be taken for the first.
        "kv_cache_memory_bytes": KV_CACHE_BYTES,
    }
    if asked.tp > 1:
        options["distributed_executor_backend"] = "external_launcher"
    if "vision_config" in _config(asked.model):
        options["limit_mm_per_prompt"] = {"image": 0, "video": 0}  # images need files that a text run has no use for
    return options | {name: json.loads(value) for name, _, value in (word.partition("=") for word in asked.option)}


def _config(model: str) -> dict[str, Any]:
    path = Path(model, "config.json")
    return dict(json.loads(path.read_text("utf-8"))) if path.is_file() else {}


def _model_of(engine: Any) -> Any:
    found: list[Any] = []
    engine.apply_model(found.append)
    return found[0]


def _generate(engine: Any, asked: argparse.Namespace) -> list[int]:
    if not (asked.prompt_ids and asked.max_new_tokens):
        return []
    from vllm import SamplingParams

    prompt = {"prompt_token_ids": [int(word) for word in asked.prompt_ids.split(",")]}
    wanted = SamplingParams(max_tokens=asked.max_new_tokens, temperature=0.0, detokenize=False, ignore_eos=True)
    (answer,) = engine.generate(prompt, wanted, use_tqdm=False)
    tokens = list(answer.outputs[0].token_ids)
    print(f"generated {tokens}", flush=True)
    return tokens


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
