"""Loads checkpoints with vLLM one after the other, without the probe, and tells of each what an independent look saw.

A line of JSON on standard input is one load: `words` of the launcher, the `port` at which its ranks meet, and the
file `ghost` for where every byte came from. Counted are loader calls, by a profiler, and filled elements: weights are
loaded over two patterns that have no bit in common, and an element that keeps both was never filled.
"""

import collections
import gc
import json
import os
import runpy
import sys
import tempfile
from pathlib import Path

import torch

from backends.engines import _vllm_launch as launch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))
os.environ.update({name: value for name, value in launch.ENVIRONMENT.items() if name not in os.environ})

import ghost  # noqa: E402
import vllm  # noqa: E402
import vllm_gguf_plugin.loader as of_plugin  # noqa: E402
from vllm.distributed.parallel_state import cleanup_dist_env_and_memory  # noqa: E402
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader  # noqa: E402

PATTERNS = (0x5A, 0xA5)
RANK = int(os.environ.get("RANK", "0"))
request = {}
for plant in ("vllm_cpu_kernels.py", "vllm_loads_experts.py", "vllm_gguf_kernels.py"):
    runpy.run_path(str(HERE / plant))
plain_load = DefaultModelLoader.load_weights
build, process = of_plugin.initialize_model, of_plugin.process_weights_after_loading


def is_loader(code):
    return {"param", "loaded_weight"} <= set(code.co_varnames[: code.co_argcount])


def is_in_loader(frame):
    while frame is not None and not is_loader(frame.f_code):
        frame = frame.f_back
    return frame is not None


def see(frame, event, _arg):
    # A loader that ends in another one is one call, whoever makes it.
    if event == "call" and is_loader(frame.f_code) and not is_in_loader(frame.f_back):
        told["counted"][frame.f_code.co_name] += 1


def load_and_look(loader, model, config):
    parameters = {f"{RANK}/{name}": parameter.detach() for name, parameter in model.named_parameters()}
    raw = {name: bytes_of(parameter) for name, parameter in parameters.items()}
    before = {name: one.clone() for name, one in raw.items()}

    def loaded(folder):
        kept, config.model = config.model, str(folder)
        plain_load(loader, model, config)
        config.model = kept
        return {name: one.as_subclass(torch.Tensor) for name, one in parameters.items()}

    with tempfile.TemporaryDirectory() as scratch:
        found = ghost.ghost_load(Path(config.model), Path(scratch), loaded, has_casts=True)
    tensors = [{name: torch.from_numpy(one) for name, one in by.items()} for by in found]
    torch.save(tensors, f"{request['ghost']}.{RANK}")
    filled = {name: torch.zeros(len(one), dtype=torch.bool) for name, one in raw.items()}
    for pattern in PATTERNS:
        for one in raw.values():
            one.fill_(pattern)
        sys.setprofile(see if pattern == PATTERNS[-1] else None)
        plain_load(loader, model, config)
        sys.setprofile(None)
        for name, one in raw.items():
            filled[name] |= (one != pattern).any(1)
    for name, one in raw.items():
        one[~filled[name]] = before[name][~filled[name]]
    told["filled"] = {name.partition("/")[2]: int(mask.sum()) for name, mask in filled.items()}


def build_and_count(*args, **kwargs):
    model = build(*args, **kwargs)
    sys.setprofile(see)
    return model


def stop_and_process(*args):
    sys.setprofile(None)
    process(*args)


DefaultModelLoader.load_weights = load_and_look
of_plugin.initialize_model, of_plugin.process_weights_after_loading = build_and_count, stop_and_process
bytes_of = runpy.run_path(str(HERE / "vllm_load.py"))["bytes_of"]
told = sys.loadscope_test_told

for line in sys.stdin:
    request.update(json.loads(line))
    told.clear()
    told["counted"] = collections.Counter()
    asked = launch._parsed(request["words"])
    if asked.tp > 1:
        os.environ["MASTER_PORT"] = str(request["port"])
        launch._meet_at_port()
    engine = vllm.LLM(**launch._options(asked))
    tokens = launch._generate(engine, asked)
    model = launch._model_of(engine)
    runpy.run_path(str(HERE / "vllm_tell.py"), {"model": model, "rank": RANK, "tokens": tokens})
    engine.llm_engine.engine_core.shutdown()
    del engine, model
    gc.collect()
    cleanup_dist_env_and_memory()
