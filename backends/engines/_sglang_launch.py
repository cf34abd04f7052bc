"""Builds and loads a model with the SGLang of this Python, as rank r of n, in one process without a GPU.

It calls what SGLang's own model runner calls: its model configuration, its parallel groups (over a process group that
carries nothing) and its model loader, which builds, loads and post-processes. SGLang itself is not changed.
"""

from __future__ import annotations

import argparse
import os
import runpy
import subprocess
import sys
from typing import Any

ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "",
    "SGLANG_USE_CPU_ENGINE": "0",  # the engine's CPU mode pads sizes for its CPU kernels: not what is loaded on a GPU
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def main(words: list[str]) -> int:
    """Load the asked rank, or all of them one after the other."""
    asked = _parsed(words)
    if asked.rank == "all" and asked.tp > 1:
        return _all_together(asked.tp) if asked.together else _all_ranks(asked.tp)
    os.environ.update({name: value for name, value in ENVIRONMENT.items() if name not in os.environ})
    _import_sglang()
    load(asked, 0 if asked.rank == "all" else int(asked.rank))
    return 0


def _all_ranks(tp: int) -> int:
    """One process a rank, since SGLang keeps its groups and arguments in module variables; the first failure's code."""
    # The very command that started this one, so that the probe is armed in the same way; a forked child of a process
    # that has imported the engine does not come to its end.
    codes = [subprocess.run([*sys.orig_argv, "--rank", str(rank)], check=False).returncode for rank in range(tp)]
    return _first_failure(codes)


def _all_together(tp: int) -> int:
    """The same with all ranks at once, so that they can be stepped together; takes the memory of all of them."""
    ranks = [subprocess.Popen([*sys.orig_argv, "--rank", str(rank)]) for rank in range(tp)]
    return _first_failure([rank.wait() for rank in ranks])


def _first_failure(codes: list[int]) -> int:
    return next((code if code > 0 else 128 - code for code in codes if code), 0)


def _parsed(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="loadscope trace … --engine sglang --", description=__doc__)
    parser.add_argument("model", help="the checkpoint's folder")
    parser.add_argument("--tp", type=int, default=1, metavar="N", help="tensor parallel size")
    parser.add_argument("--rank", default="all", metavar="R|all", help="the rank to load")
    parser.add_argument("--together", action="store_true", help="with --rank all: all ranks at the same time")
    parser.add_argument("--quantization", metavar="NAME", help="as SGLang's own option")
    parser.add_argument("--load-format", default="auto", metavar="NAME", help="as SGLang's own option")
    parser.add_argument(
        "--before", action="append", default=[], metavar="FILE", help="run this Python file before the model is built"
    )
    parser.add_argument("--after", metavar="FILE", help="run this Python file afterwards; it has `model` and `rank`")
    asked = parser.parse_args(words)
    if asked.rank != "all" and not (asked.rank.isdigit() and int(asked.rank) < asked.tp):
        parser.error(f"--rank {asked.rank}: with --tp {asked.tp} there are the ranks 0 to {asked.tp - 1}")
    return asked


def _import_sglang() -> None:
    import torch

    from backends.engines import _sglang_stand_ins as stand_ins

    torch.set_num_threads(min(2, torch.get_num_threads()))
    stand_ins.install()
    import sglang  # the probe begins here
    import sglang.srt.model_loader.loader

    stand_ins.fill_kernels()
    if stand_ins.absent():
        print(f"sglang {sglang.__version__}: {', '.join(stand_ins.absent())} not installed, imports only", flush=True)


def load(asked: argparse.Namespace, rank: int) -> Any:
    """Build and load one rank; returns the model. Raises what SGLang raises."""
    _join_groups(rank, asked.tp)
    from sglang.srt.configs.device_config import DeviceConfig
    from sglang.srt.configs.load_config import LoadConfig
    from sglang.srt.configs.model_config import ModelConfig
    from sglang.srt.model_loader.loader import get_model_loader

    for path in asked.before:
        runpy.run_path(path)
    config = ModelConfig(asked.model, quantization=asked.quantization)
    loader = get_model_loader(LoadConfig(load_format=asked.load_format, tp_rank=rank), config)
    model = loader.load_model(model_config=config, device_config=DeviceConfig("cpu"))
    print(f"rank {rank} of {asked.tp}: {type(model).__name__} is loaded", flush=True)
    if asked.after:
        runpy.run_path(asked.after, {"model": model, "rank": rank})
    return model


def _join_groups(rank: int, tp: int) -> None:
    import torch.distributed as dist
    from sglang.srt.distributed import parallel_state
    from torch.testing._internal.distributed.fake_pg import FakeStore  # registers the backend "fake"

    arguments = _publish_arguments(rank, tp)
    new_group = dist.new_group

    def new_fake_group(ranks: Any = None, backend: Any = None, **options: Any) -> Any:
        del backend
        kept = {name: options[name] for name in ("timeout", "group_desc") if name in options}
        return new_group(ranks, backend="fake", **kept)

    setattr(dist, "new_group", new_fake_group)  # noqa: B010 - SGLang asks for backends that need other processes
    _without_broadcaster(parallel_state.GroupCoordinator)
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=tp)
    parallel_state.init_distributed_environment(
        world_size=tp, rank=rank, local_rank=0, backend="fake", distributed_init_method="env://"
    )
    try:
        parallel_state.initialize_model_parallel(tensor_model_parallel_size=tp, backend="fake")
    except TypeError:  # later versions read the sizes from the published arguments
        parallel_state.initialize_model_parallel(backend="fake")
    _place_attention(rank, tp)
    _configure_experts(arguments)


def _publish_arguments(rank: int, tp: int) -> Any:
    """The server arguments which model code reads; SGLang checks nothing of them for the model path "dummy"."""
    from sglang.srt import server_args

    try:
        from sglang.srt import runtime_context
    except ImportError:
        runtime_context = None
    if hasattr(runtime_context, "publish"):
        arguments = server_args.ServerArgs(model_path="dummy", device="cpu", tp_size=tp)
        ranks = runtime_context.SpawnRanks(world_rank=rank, gpu_id=0, dp_rank=None)
        runtime_context.publish(arguments, role="scheduler", ranks=ranks)
        return arguments
    arguments = server_args.ServerArgs(model_path="dummy")
    arguments.device, arguments.tp_size = "cpu", tp
    server_args.set_global_server_args_for_scheduler(arguments)
    return arguments


def _without_broadcaster(coordinator: type) -> None:
    """Groups without the queue in shared memory: nobody is at its other end."""
    import inspect

    make: Any = vars(coordinator)["__init__"]
    names = list(inspect.signature(make).parameters)
    place = names.index("use_message_queue_broadcaster")

    def make_alone(self: Any, *args: Any, **kwargs: Any) -> None:
        if place <= len(args):
            args = (*args[: place - 1], False, *args[place:])
        else:
            kwargs["use_message_queue_broadcaster"] = False
        make(self, *args, **kwargs)

    coordinator.__init__ = make_alone  # type: ignore[misc]


def _place_attention(rank: int, tp: int) -> None:
    """Before 0.5.14 the ranks of attention stand in module variables which the scheduler sets."""
    from sglang.srt.layers import dp_attention

    places = {
        "_ATTN_TP_RANK": rank, "_ATTN_TP_SIZE": tp, "_ATTN_DP_RANK": 0, "_ATTN_DP_SIZE": 1,
        "_LOCAL_ATTN_DP_RANK": 0, "_LOCAL_ATTN_DP_SIZE": 1,
    }  # fmt: skip
    for name, value in places.items():
        if hasattr(dp_attention, name) and getattr(dp_attention, name) is None:
            setattr(dp_attention, name, value)


def _configure_experts(arguments: Any) -> None:
    from sglang.srt.layers.moe.utils import initialize_moe_config

    if initialize_moe_config.__code__.co_argcount:
        initialize_moe_config(arguments)
    else:
        initialize_moe_config()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
