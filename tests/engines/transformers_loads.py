"""Checkpoints for transformers, sound and flawed, and a process that does many loads one after the other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[2]
RUN = "from workbench.cli import main; raise SystemExit(main())"
PATIENCE_S = 300
INSPECTORS = [f"inspectors.{name}" for name in ("checkpoint", "decisions", "weights", "kernels")]  # kernels: the last
MANIFEST = {"level": "ledger", "engines": ["backends.engines.transformers"], "inspectors": INSPECTORS}

FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}


def compressed(form: str, weights: dict[str, Any], **inputs: Any) -> dict[str, Any]:
    weights = {"symmetric": True, "dynamic": False, **weights}
    group = {"targets": ["Linear"], "weights": weights, "input_activations": {**weights, **inputs} if inputs else None}
    return {"quant_method": "compressed-tensors", "format": form, "quantization_status": "compressed",
            "ignore": ["lm_head"], "config_groups": {"group_0": group}}  # fmt: skip


INT8, FLOAT8 = ({"num_bits": 8, "type": kind, "strategy": "channel"} for kind in ("int", "float"))
INT4 = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32}
FLOAT4 = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}
FORMS = {
    "fp8": FP8,
    "fp8tensor": {"quant_method": "fp8", "activation_scheme": "dynamic"},
    "w8a8": compressed("int-quantized", INT8, strategy="token", dynamic=True),
    "ctfp8": compressed("float-quantized", FLOAT8, strategy="token", dynamic=True),
    "int4": compressed("pack-quantized", INT4),
    "nvfp4": compressed("nvfp4-pack-quantized", FLOAT4, dynamic="local"),
}

HOST = """
import contextlib, hashlib, json, sys, threading, collections
from pathlib import Path
from inspectors.probe.bootstrap import arm; arm()
from backends.engines import _transformers_launch as launch
import torch

counted, threads = collections.Counter(), collections.Counter()
NAMED = {"set_param_for_module": ("param_value",), "convert": ("self", "input_dict"), "_materialize_copy": ("tensor",)}

def see(frame, event, _arg):
    code = frame.f_code
    if event == "call" and code.co_name in NAMED and set(NAMED[code.co_name]) <= set(code.co_varnames):
        counted[code.co_name] += 1
        threads[code.co_name, threading.current_thread() is threading.main_thread()] += 1

def digest(tensor):
    return hashlib.sha256(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()

def one(folder, keep):
    asked = launch._parsed([folder, "--prompt-ids", "1,2,3", "--max-new-tokens", "2"])
    try:
        model = launch.load(asked)
        held = {n: p.detach().contiguous().clone() for n, p in [*model.named_parameters(), *model.named_buffers()]}
        tokens = launch.generate(model, asked.prompt_ids, asked.max_new_tokens)
    except RuntimeError as error:
        return {"error": str(error)}
    if keep: torch.save(held, keep)
    return {"sha256": {n: digest(p) for n, p in held.items()}, "tokens": tokens}

told = {}
for name, given in json.loads(sys.argv[1]).items():
    counted.clear(), threads.clear()
    if given["session"]:
        from inspectors.probe.agent import running_probe
        if running_probe(): running_probe().move_to(Path(given["session"]))
        said = one(given["model"], given["session"] + "/parameters.pt" if given.get("is_kept", True) else None)
    else:
        threading.setprofile(see); sys.setprofile(see)
        said = one(given["model"], None)
        sys.setprofile(None); threading.setprofile(None)
        said["counted"] = dict(counted)
        said["reads_elsewhere"] = threads["_materialize_copy", False]
    told[name] = said
DECIDE
print("TOLD " + json.dumps(told))
"""
DECIDE = """
if len(sys.argv) > 2:
    from transformers import AutoConfig, AutoModelForCausalLM, FineGrainedFP8Config
    from transformers.integrations.finegrained_fp8 import replace_with_fp8_linear
    running_probe().move_to(Path(sys.argv[2]))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(sys.argv[3]))
    replace_with_fp8_linear(model, ["lm_head", "model.layers.0.mlp.gate"], FineGrainedFP8Config())
"""

Change = Callable[[dict[str, torch.Tensor]], Any]


def written(folder: Path, name: str) -> Path:
    """The checkpoint `Architecture`, `Architecture/form`, `Architecture/tied` or `Architecture/gguf`."""
    from backends.native.checkpoint.gguf_synthesize import all_of, write_gguf
    from backends.native.checkpoint.synthesize import write_checkpoint
    from backends.native.registry import architecture_module

    architecture, _, form = name.partition("/")
    config = architecture_module(architecture).tiny_config()
    if form == "gguf":
        return write_gguf(folder / "model.gguf", config, seed=5, types=all_of("Q8_0"))
    text = config.get("text_config", config)
    if form == "tied":
        config["tie_word_embeddings"] = text["tie_word_embeddings"] = True
    elif form == "fp16":
        config["dtype"] = text["dtype"] = "float16"
    elif form in FORMS:
        config["quantization_config"] = _quantized(config, text, form)
    write_checkpoint(folder, config, seed=5, max_file_bytes=4_000_000)
    return folder


def _quantized(config: dict[str, Any], text: dict[str, Any], form: str) -> dict[str, Any]:
    """The form's config, with the routers of experts in its list as they are called on disk."""
    prefix = "model.language_model" if text is not config else "model"
    parts = ("mlp.gate", "mlp.shared_expert_gate") if "shared_expert_intermediate_size" in text else ("mlp.gate",)
    numbers = range(int(text["num_hidden_layers"])) if "num_experts" in text else ()
    dense = set(text.get("mlp_only_layers") or ())
    gates = [f"{prefix}.layers.{n}.{part}" for n in numbers if n not in dense for part in parts]
    key = "modules_to_not_convert" if form.startswith("fp8") else "ignore"
    return {**FORMS[form], key: ["lm_head", *gates]}


def flawed(folder: Path, sound: Path, change: Change) -> Path:
    tensors = {name: t for file in sound.glob("*.safetensors") for name, t in load_file(file).items()}
    change(tensors)
    folder.mkdir()
    (folder / "config.json").write_bytes((sound / "config.json").read_bytes())
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def environment(session: Path | None) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LOADSCOPE_")}
    armed = {"LOADSCOPE_SESSION": str(session)} if session else {}
    return {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **armed}


def run_host(given: dict[str, Any], session: Path | None, *words: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", HOST.replace("DECIDE", DECIDE), json.dumps(given), *words],
        capture_output=True, text=True, check=False, timeout=PATIENCE_S, env=environment(session),
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line.startswith("TOLD ")]
    assert lines, done.stderr
    return json.loads(lines[-1].removeprefix("TOLD "))
