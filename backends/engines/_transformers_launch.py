"""Loads a model with the transformers of this Python, in one process a rank, then runs a prompt and greedy tokens."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import runpy
import subprocess
import sys
from typing import Any

ENVIRONMENT = {
    "GLOO_SOCKET_IFNAME": "lo",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "warning",
}

ASKING_FOR_ACCELERATE = ("modeling_utils", "integrations.accelerate", "quantizers.quantizer_finegrained_fp8")


def main(words: list[str]) -> int:
    """Load, and generate if a prompt is given."""
    asked = _parsed(words)
    if asked.device == "cpu" and asked.tp > 1:
        ENVIRONMENT["CUDA_VISIBLE_DEVICES"] = ""
    os.environ.update({name: value for name, value in ENVIRONMENT.items() if name not in os.environ})
    if asked.tp > 1 and "RANK" not in os.environ:
        return _all_ranks(asked.tp)
    rank, model = int(os.environ.get("RANK", "0")), load(asked)
    if asked.after:
        runpy.run_path(asked.after, {"model": model, "rank": rank})
    if asked.prompt_ids:
        tokens = generate(model, asked.prompt_ids, asked.max_new_tokens)
        print(f"tokens: {','.join(map(str, tokens))}", flush=True)
    if asked.tp > 1:
        _part()
    return 0


def _all_ranks(tp: int) -> int:
    """Let torchrun start the very command that started this one, so that the probe is armed in the same way."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(tp)]
    return subprocess.run([*torchrun, "--no-python", *sys.orig_argv], check=False).returncode


def _part() -> None:
    """Leave the group of ranks, which complains about one that is only dropped."""
    import torch

    torch.distributed.destroy_process_group()


def _parsed(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="loadscope trace … --engine transformers --", description=__doc__)
    parser.add_argument("model", help="the checkpoint's folder, or a GGUF file")
    parser.add_argument("--tp", type=int, default=1, metavar="N", help="processes, each with its part (tp_plan auto)")
    parser.add_argument("--device", default="cpu", help="where the model is put after the load")
    parser.add_argument("--dtype", default="auto", help="as from_pretrained's own argument")
    parser.add_argument("--class", dest="class_name", default="AutoModelForCausalLM", metavar="NAME")
    parser.add_argument("--prompt-ids", type=_ids, default=(), metavar="1,2,3", help="token ids to run")
    parser.add_argument("--max-new-tokens", type=int, default=0, metavar="N", help="tokens to generate after them")
    parser.add_argument("--before", metavar="FILE", help="run this Python file before the model is built")
    parser.add_argument("--after", metavar="FILE", help="run this Python file after the load; it has `model`")
    return parser.parse_args(words)


def _ids(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split(",") if word.strip())


def load(asked: argparse.Namespace) -> Any:
    """The model, of the language model's class where config.json describes more. Raises what transformers raises."""
    import torch
    import transformers  # the probe begins here

    torch.set_num_threads(min(2, torch.get_num_threads()))
    _without_accelerate()
    if asked.before:
        runpy.run_path(asked.before)
    folder, _, gguf_file = asked.model.rpartition(os.sep) if asked.model.endswith(".gguf") else (asked.model, "", "")
    options: dict[str, Any] = {"gguf_file": gguf_file} if gguf_file else {}
    if asked.tp > 1:
        from transformers.distributed.configuration_utils import DistributedConfig

        options["distributed_config"] = DistributedConfig(tp_plan="auto", tp_size=asked.tp)
    model = getattr(transformers, asked.class_name).from_pretrained(folder, dtype=asked.dtype, **options)
    model = model if asked.tp > 1 else model.to(asked.device)
    print(f"transformers {transformers.__version__}: {type(model).__name__} is loaded", flush=True)
    return model


def _without_accelerate() -> None:
    """FP8, GGUF and tensor parallel loads are refused without accelerate, which none of them uses on a CPU."""
    if importlib.util.find_spec("accelerate") is None:
        for name in ASKING_FOR_ACCELERATE:
            setattr(importlib.import_module(f"transformers.{name}"), "is_accelerate_available", lambda: True)  # noqa: B010


def generate(model: Any, prompt_ids: tuple[int, ...], max_new_tokens: int) -> list[int]:
    """The likeliest tokens after a prompt, one pass for the prompt and one for each but the last token."""
    import torch

    tokens: list[int] = []
    given, cache, position = list(prompt_ids), None, 0
    with torch.no_grad():
        while len(tokens) < max_new_tokens:
            at = torch.arange(position, position + len(given), device=model.device)[None]
            out = model(
                input_ids=torch.tensor([given], device=model.device),
                position_ids=at, past_key_values=cache, use_cache=True,
            )  # fmt: skip
            cache, position = out.past_key_values, position + len(given)
            given = [int(out.logits[0, -1].argmax())]
            tokens += given
    return tokens


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
