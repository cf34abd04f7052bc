"""Loads with vLLM of an environment of its own: recorded by the command line, and the same without the probe."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
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


@dataclass(frozen=True)
class Unrecorded:
    """What each rank of a load without the probe told; `ghost` is the beginning of the files of where bytes came from."""

    told: dict[int, dict[str, Any]]
    ghost: Path


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


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one load go to one process under `--dist loadgroup`, so that each load is done once."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            of = getattr(item, "callspec", None)
            group = f"{of.params['checkpoint']} {of.params['tp']}" if of and "tp" in of.params else item.path.stem
            item.add_marker(pytest.mark.xdist_group(group))


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
        text = {**text, "mlp_only_layers": [], "num_experts": 4, "moe_intermediate_size": 256}
    if "text_config" in config:
        config |= {"text_config": text, "vision_config": {**config["vision_config"], "num_heads": 4}}
    else:
        config = text
    if form == "gguf":
        return _written_gguf(folder, config)
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


def _written_gguf(folder: Path, config: dict[str, Any]) -> Path:
    """A GGUF file whose name tells what it is, with the config.json that vLLM reads beside it."""
    from backends.native.checkpoint.gguf_synthesize import write_gguf

    path = write_gguf(folder / folder.name, config, seed=5)
    (folder / "config.json").write_text(json.dumps(config))
    return path


def _never_quantized(config: dict[str, Any]) -> list[str]:
    """The modules which published checkpoints leave as they are, by their names on disk."""
    from backends.native.config import ModelConfig
    from backends.native.registry import architecture_module

    read = ModelConfig.from_fields(config)
    tensors = architecture_module(read.architecture).tensors(read)
    modules = (one.name.rpartition(".")[0] for one in tensors if one.quantizable)
    return [name for name in modules if name.endswith(NEVER_QUANTIZED)]


def is_only_loaded(checkpoint: Path) -> bool:
    """Whether vLLM has no kernel for it on a CPU: quantized experts."""
    return checkpoint.name.startswith(("Qwen3Moe", "Qwen3Next")) and not checkpoint.name.endswith("bf16")


def plants(checkpoint: Path) -> tuple[str, ...]:
    """What the launcher runs besides: the counters, and kernels where vLLM has none for a CPU."""
    needs_kernels = any(form in checkpoint.name for form in ("fp8", "nvfp4"))
    kernels = ("--before", str(PLANTS / "vllm_cpu_kernels.py")) if needs_kernels else ()
    if checkpoint.suffix == ".gguf":
        kernels = ("--before", str(PLANTS / "vllm_gguf_kernels.py"))
    if is_only_loaded(checkpoint):
        kernels += ("--before", str(PLANTS / "vllm_loads_experts.py"))
    return ("--before", str(PLANTS / "vllm_load.py"), "--after", str(PLANTS / "vllm_tell.py"), *kernels)


def prompt(checkpoint: Path) -> tuple[str, ...]:
    """The launcher's words for the prompt and the number of tokens to generate."""
    return ("--prompt-ids", "1,2,3,4,5", "--max-new-tokens", "0" if is_only_loaded(checkpoint) else "4")


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
                "trace", checkpoint, *options, "--", *prompt(checkpoint), *plants(checkpoint), *words, LOADSCOPE_TEST_KEEP=home / "values"
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


class Untraced:
    """Processes of vLLM without the probe, one a rank, that load what they are asked for one after the other."""

    def __init__(self, python: Path, tp: int, folder: Path) -> None:
        self._tp, self._folder, self._asked = tp, folder, 0
        shared = {"WORLD_SIZE": tp, "MASTER_ADDR": "127.0.0.1"} if tp > 1 else {}
        self._ranks = [
            subprocess.Popen(
                [str(python), str(PLANTS / "vllm_oracle.py")], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=(folder / f"log.{rank}").open("w"),
                env=environment(RANK=rank, LOCAL_RANK=rank, **shared),
            )
            for rank in range(tp)
        ]  # fmt: skip

    def load(self, checkpoint: Path) -> Unrecorded:
        """What each rank told of one load, and where every byte of it came from."""
        self._asked += 1
        ghost = self._folder / f"ghost-{self._asked}"
        words = [str(checkpoint), "--tp", str(self._tp), *prompt(checkpoint)]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        for rank in self._ranks:
            rank.stdin.write(json.dumps({"words": words, "port": port, "ghost": str(ghost)}) + "\n")
            rank.stdin.flush()
        told = [self._answer(rank) for rank in range(self._tp)]
        return Unrecorded(dict(enumerate(told)), ghost)

    def _answer(self, rank: int) -> dict[str, Any]:
        for line in self._ranks[rank].stdout:
            if line.startswith("TOLD "):
                return json.loads(line.removeprefix("TOLD "))
        raise AssertionError((self._folder / f"log.{rank}").read_text()[-4000:])

    def close(self) -> None:
        for rank in self._ranks:
            rank.terminate()
        for rank in self._ranks:
            rank.wait()


@pytest.fixture(scope="session")
def untraced_vllm(vllm_python, tmp_path_factory) -> Callable[..., Unrecorded]:
    """The same load without the probe, counted by other means; the same is run only once."""
    started: dict[int, Untraced] = {}
    done_before: dict[tuple[Path, int], Unrecorded] = {}

    def run(checkpoint: Path, tp: int = 1) -> Unrecorded:
        if tp not in started:
            started[tp] = Untraced(vllm_python, tp, tmp_path_factory.mktemp("untraced"))
        if (checkpoint, tp) not in done_before:
            done_before[checkpoint, tp] = started[tp].load(checkpoint)
        return done_before[checkpoint, tp]

    yield run
    for one in started.values():
        one.close()


class Ghosts:
    """The ledger's account of a load against loads without the probe of checkpoints whose bytes say where they are."""

    def __init__(self, ghost: ModuleType) -> None:
        self._ghost = ghost

    def writes(self, traced: Traced, rank: int) -> list[dict[str, Any]]:
        """What the probe recorded of a rank's writes."""
        streams = sorted((traced.session.folder / "streams").glob("*.sqlite"))
        loads = [events for stream in streams for _, events in self._ghost.writes_in(stream)]
        return [event for events in loads for event in events if event["rank"] == rank]

    def of(
        self, traced: Traced, without: Unrecorded, checkpoint: Path, rank: int, writes: list[dict[str, Any]] | None = None
    ) -> Any:
        """The verdict on what was recorded of one rank, or on other writes."""
        held = {f"{rank}/{name}": one for name, one in torch.load(f"{traced.kept}.{rank}").items()}
        said = self.writes(traced, rank) if writes is None else writes
        account = self._ghost.accounts(said, held, self._ghost.stored_tensors(checkpoint))
        actual = torch.load(f"{without.ghost}.{rank}")
        return self._ghost.verdict(account, tuple({name: one.numpy() for name, one in of.items()} for of in actual))


@pytest.fixture(scope="session")
def ghosts() -> Ghosts:
    path = Path(__file__).parents[2] / "ghost.py"
    spec = importlib.util.spec_from_file_location("loadscope_tests_ghost", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return Ghosts(module)


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
