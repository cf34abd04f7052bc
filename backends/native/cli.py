"""The command line: load a checkpoint and continue a prompt, logging as an engine does."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from time import perf_counter

import torch

from backends.devices.errors import DeviceError
from backends.devices.placement import device_named, modules
from backends.native.config import DTYPES, end_token_ids
from backends.native.errors import SamplingError
from backends.native.generate import generate
from backends.native.kernels.choice import KINDS
from backends.native.loader import LoadOptions, load
from backends.native.parallel.groups import tp_rank
from backends.native.parallel.processes import joined_processes, world_size
from backends.native.quantization.skip import DEFAULT_FUSED_FALLBACK
from backends.native.sampling import Sampling
from backends.native.tokenizer import read_tokenizer

logger = logging.getLogger(__name__)


def token_ids(text: str) -> list[int]:
    """`1,2,3` as a list; a ValueError makes argparse print the usage."""
    ids = [int(part) for part in text.split(",")]
    if min(ids) < 0:
        raise ValueError(text)
    return ids


def fused_names(text: str) -> Mapping[str, Sequence[str]]:
    """A JSON object of lists of names."""
    names = json.loads(text)
    if not isinstance(names, dict) or not all(
        isinstance(parts, list) and all(isinstance(part, str) for part in parts) for parts in names.values()
    ):
        raise ValueError(text)
    return names


def positive(text: str) -> int:
    """A whole number above zero."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def known_device(text: str) -> str:
    """The name of a device, with a number or without; an error with the nearest name makes argparse print the usage."""
    try:
        device_named(text.partition(":")[0])
    except DeviceError as error:
        raise argparse.ArgumentTypeError(f"{error.what} {error.remedy}") from error
    return text


def make_parser() -> argparse.ArgumentParser:
    """The options of `python -m backends.native`."""
    parser = argparse.ArgumentParser(prog="python -m backends.native", description=__doc__)
    add = parser.add_argument
    add("model", help="folder with config.json and safetensors files, or a GGUF file")
    add("--tp", type=positive, default=1, metavar="N", help="tensor parallel size (default 1)")
    prompt = parser.add_mutually_exclusive_group()
    prompt.add_argument("--prompt-ids", type=token_ids, default=[1, 2, 3], metavar="IDS", help="prompt, such as 1,2,3")
    prompt.add_argument(
        "--prompt", metavar="TEXT", help="prompt in words, for the checkpoint's tokenizer; ends at its end token"
    )
    add("--max-new-tokens", type=positive, default=4, metavar="N", help="tokens to generate (default 4)")
    add("--temperature", type=float, default=0.0, metavar="T", help="0 takes the likeliest token (default)")
    add("--top-k", type=int, default=0, metavar="K", help="draw from the K likeliest tokens (default 0: all)")
    add("--top-p", type=float, default=1.0, metavar="P", help="draw from the likeliest tokens of total probability P")
    add("--seed", type=int, default=0, metavar="N", help="seed of the draw (default 0)")
    add(
        "--dtype",
        choices=["auto", *DTYPES],
        default="auto",
        help="dtype of what is not quantized (default: the model's)",
    )
    add("--device", type=known_device, default="cpu", metavar="NAME",
        help=f"one of {', '.join(modules())}, or a name and a number such as cpu:0 (default cpu)")  # fmt: skip
    add("--fused-fallback", type=fused_names, default=DEFAULT_FUSED_FALLBACK, metavar="JSON",
        help="fused names and their parts, used where the model does not say")  # fmt: skip
    add("--kernels", choices=KINDS, help="kernels to run (default: those the device prefers)")
    add("--quantize-inputs", action="store_true",
        help="quantize the inputs of FP8 blocks too, as engines do on GPUs (default: the weights only)")  # fmt: skip
    add("--load-only", action="store_true", help="stop when the model is loaded")
    add(
        "--threads",
        type=positive,
        metavar="N",
        help="threads of torch per rank (default: torch's, divided by the ranks)",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; exceptions of the load pass through, as they do in an engine."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    processes = world_size()
    if processes not in (1, options.tp):
        parser.error(f"torchrun started {processes} processes, so --tp must be {processes}, not {options.tp}")
    try:
        sampling = Sampling(options.temperature, options.top_k, options.top_p, options.seed)
    except SamplingError as error:
        parser.error(error.what)
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.INFO, stream=sys.stderr)
    # Each rank is a thread or a process with a pool of its own, whose idle workers spin.
    torch.set_num_threads(options.threads or max(1, torch.get_num_threads() // options.tp))
    with nullcontext() if processes == 1 else joined_processes():
        return run(options, sampling)


def run(options: argparse.Namespace, sampling: Sampling) -> int:
    """Load, and continue the prompt; rank 0 prints the answer."""
    tokenizer = None if options.prompt is None else read_tokenizer(options.model)
    prompt_ids = options.prompt_ids if tokenizer is None else tokenizer.encode(options.prompt)
    stop_ids = () if tokenizer is None else end_token_ids(options.model)
    started = perf_counter()
    loaded = load(options.model, load_options(options))
    logger.info("loaded in %.2f s", perf_counter() - started)
    if options.load_only:
        return 0
    started = perf_counter()
    new_ids = generate(loaded, prompt_ids, options.max_new_tokens, sampling, stop_ids)
    loaded.place.synchronize()
    logger.info("generated %d tokens in %.2f s", len(new_ids), perf_counter() - started)
    if tp_rank() == 0:
        answer = [",".join(map(str, new_ids))] + ([] if tokenizer is None else [tokenizer.decode(new_ids)])
        sys.stdout.write("".join(f"{line}\n" for line in answer))
    return 0


def load_options(options: argparse.Namespace) -> LoadOptions:
    """What the command line says about the load."""
    return LoadOptions(
        tp_size=options.tp,
        dtype=DTYPES.get(options.dtype),
        device=options.device,
        kernels=options.kernels,
        quantizes_inputs=options.quantize_inputs,
        fused_fallback=options.fused_fallback,
    )
