"""Loads with vLLM of an environment of its own: recorded by the command line, and the same without the probe."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from sessions.session import Session

ROOT = Path(__file__).resolve().parents[4]
PLANTS = Path(__file__).parents[1] / "plants"
ENVIRONMENT = "vllm-0.32"
RUN = (sys.executable, "-c", "from workbench.cli import main; raise SystemExit(main())")
PATIENCE_S = 600
INT8 = {"num_bits": 8, "type": "int", "symmetric": True}
FLOAT4 = {"num_bits": 4, "type": "float", "symmetric": True, "strategy": "tensor_group", "group_size": 16}
FORMS = {
    "w8a8": (
        {**INT8, "strategy": "channel", "dynamic": False}, {**INT8, "strategy": "token", "dynamic": True},
        "int-quantized",
    ),
    "w4a16": (
        {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 128}, None,
        "pack-quantized",
    ),
    "nvfp4": (
        {**FLOAT4, "dynamic": False}, {**FLOAT4, "dynamic": "local"},
        "nvfp4-pack-quantized",
    ),
}  # fmt: skip
"""Weights, inputs and layout of the compressed-tensors forms."""
NEVER_QUANTIZED = (".mlp.gate", ".shared_expert_gate", ".in_proj_a", ".in_proj_b", ".in_proj_ba")
FLOAT8 = {"quant_method": "fp8", "activation_scheme": "dynamic"}


@dataclass(frozen=True)
class Traced:
    """A recorded load: exit code, what the command printed, the host's log, the session, and what each rank told."""

    code: int
    verdict: dict[str, Any]
    log: str
    session: Session
    told: dict[int, dict[str, Any]]
    kept: Path

    def of(self, kind: str) -> list[Any]:
        return list(self.session.of_kinds(kind))


def told_in(log: str) -> dict[int, dict[str, Any]]:
    """What each rank's host told, by rank."""
    lines = [json.loads(line.removeprefix("TOLD ")) for line in log.splitlines() if line.startswith("TOLD ")]
    return {one["rank"]: one for one in lines}


def environment(**more: object) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LOADSCOPE_SESSION")}
    return {
        **kept,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        **{name: str(value) for name, value in more.items()},
    }


@pytest.fixture(scope="session")
def loadscope_root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def loadscope_command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `loadscope WORDS` in a process of its own; keywords are more environment variables."""

    def run(*words: object, **more: object) -> subprocess.CompletedProcess[str]:
        command = [*RUN, *(str(word) for word in words)]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=PATIENCE_S, env=environment(**more)
        )

    return run


@pytest.fixture(scope="session")
def vllm_python(engine_python) -> Path:
    return engine_python(ENVIRONMENT)


@pytest.fixture(scope="session")
def vllm_checkpoint(tmp_path_factory) -> Callable[[str], Path]:
    """`Architecture/form` as the native stack writes it, in sizes for which vLLM has kernels on a CPU."""
    made: dict[str, Path] = {}

    def checkpoint(name: str) -> Path:
        if name not in made:
            made[name] = _written(tmp_path_factory.mktemp("checkpoint") / name.replace("/", "-"), *name.split("/"))
        return made[name]

    return checkpoint


def _written(folder: Path, architecture: str, form: str) -> Path:
    from backends.native.checkpoint.synthesize import write_checkpoint
    from backends.native.registry import architecture_module

    config = dict(architecture_module(architecture).tiny_config())
    text = config.get("text_config", config)
    if "linear_value_head_dim" in text:
        sizes = {"linear_key_head_dim": 64, "linear_value_head_dim": 64}
        text = {**text, **sizes, "linear_num_key_heads": 2, "linear_num_value_heads": 4}
    if "mlp_only_layers" in text:
        text = {**text, "mlp_only_layers": []}
    if "text_config" in config:
        config |= {"text_config": text, "vision_config": {**config["vision_config"], "num_heads": 4}}
    else:
        config = text
    kept = ["lm_head", *_never_quantized(config)]
    if form in FORMS:
        weights, inputs, layout = FORMS[form]
        group = {"targets": ["Linear"], "weights": weights, "input_activations": inputs}
        config["quantization_config"] = {
            "quant_method": "compressed-tensors", "format": layout, "config_groups": {"group_0": group},
            "ignore": kept,
        }  # fmt: skip
    elif form.startswith("fp8"):
        config["quantization_config"] = {**FLOAT8, "modules_to_not_convert": kept} | (
            {"weight_block_size": [128, 128]} if form == "fp8-blocks" else {}
        )
    return write_checkpoint(folder, config, seed=5, max_file_bytes=4_000_000)


def _never_quantized(config: dict[str, Any]) -> list[str]:
    """The modules which published checkpoints leave as they are, by their names on disk."""
    from backends.native.config import ModelConfig
    from backends.native.registry import architecture_module

    read = ModelConfig.from_fields(config)
    tensors = architecture_module(read.architecture).tensors(read)
    modules = (one.name.rpartition(".")[0] for one in tensors if one.quantizable)
    return [name for name in modules if name.endswith(NEVER_QUANTIZED)]


def is_of_experts(checkpoint: Path) -> bool:
    return checkpoint.name.startswith(("Qwen3Moe", "Qwen3Next"))


def plants(checkpoint: Path) -> tuple[str, ...]:
    """What the launcher runs besides: the counters, and kernels where vLLM has none for a CPU."""
    needs_kernels = any(form in checkpoint.name for form in ("fp8", "nvfp4"))
    kernels = ("--before", str(PLANTS / "vllm_cpu_kernels.py")) if needs_kernels else ()
    if is_of_experts(checkpoint) and not checkpoint.name.endswith("bf16"):
        kernels += ("--before", str(PLANTS / "vllm_loads_experts.py"), "--max-new-tokens", "0")
    return ("--before", str(PLANTS / "vllm_load.py"), "--after", str(PLANTS / "vllm_tell.py"), *kernels)


@pytest.fixture(scope="session")
def trace_vllm(tmp_path_factory, vllm_python, loadscope_command) -> Callable[..., Traced]:
    """`loadscope trace` of a checkpoint; the same is run only once."""
    done_before: dict[str, Traced] = {}

    def run(checkpoint: Path, *, tp: int = 1, words: tuple[str, ...] = ()) -> Traced:
        asked = json.dumps([str(checkpoint), tp, words])
        if asked not in done_before:
            home = tmp_path_factory.mktemp("traced")
            options = ("--engine", "vllm", "--python", vllm_python, "--tp", tp, "--json", "-o", home / "session")
            done = loadscope_command(
                "trace", checkpoint, *options, "--", *plants(checkpoint), *words, LOADSCOPE_TEST_KEEP=home / "values"
            )
            assert done.stdout.startswith("{"), done.stderr
            log = (home / "session" / "host.log").read_text(errors="replace")
            session = Session.open(home / "session")
            done_before[asked] = Traced(
                done.returncode, json.loads(done.stdout), log, session, told_in(log), home / "values"
            )
        return done_before[asked]

    yield run
    for traced in done_before.values():
        traced.session.close()


@pytest.fixture(scope="session")
def untraced_vllm(vllm_python) -> Callable[[Path], dict[str, Any]]:
    """The same load without the probe, counted by other means."""
    done_before: dict[Path, dict[str, Any]] = {}

    def run(checkpoint: Path) -> dict[str, Any]:
        if checkpoint not in done_before:
            words = ("--prompt-ids", "1,2,3,4,5", "--max-new-tokens", "4", *plants(checkpoint))
            done = subprocess.run(
                [str(vllm_python), "-m", "backends.engines._vllm_launch", str(checkpoint), *words],
                capture_output=True, text=True, check=False, timeout=PATIENCE_S,
                env=environment(LOADSCOPE_TEST_COUNT=1),
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            done_before[checkpoint] = told_in(done.stdout)[0]
        return done_before[checkpoint]

    return run


@pytest.fixture(scope="session")
def cut_checkpoint(vllm_checkpoint, tmp_path_factory):
    """Qwen3 with one k_proj that has 64 rows less than its config says."""
    folder = tmp_path_factory.mktemp("cut")
    for file in vllm_checkpoint("Qwen3ForCausalLM/bf16").iterdir():
        if file.suffix == ".safetensors":
            tensors = load_file(file)
            wrong = tensors.get("model.layers.1.self_attn.k_proj.weight")
            if wrong is not None:
                tensors["model.layers.1.self_attn.k_proj.weight"] = wrong[:-64].contiguous()
            save_file(tensors, folder / file.name, {"format": "pt"})
        else:
            (folder / file.name).write_bytes(file.read_bytes())
    return folder
