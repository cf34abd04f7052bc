"""Loads with vLLM without the probe, by processes that stay, and the verdict of ghost loads on what was recorded."""

from __future__ import annotations

import json
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

PLANTS = Path(__file__).parents[1] / "plants"


@dataclass(frozen=True)
class Unrecorded:
    """What each rank of a load without the probe told; `ghost` begins the names of files of where bytes came from."""

    told: dict[int, dict[str, Any]]
    ghost: Path


class Untraced:
    """Processes of vLLM without the probe, one a rank, that load what they are asked for one after the other."""

    def __init__(self, python: Path, tp: int, folder: Path, variables: dict[str, str]) -> None:
        self._tp, self._folder, self._asked = tp, folder, 0
        shared = {"WORLD_SIZE": str(tp), "MASTER_ADDR": "127.0.0.1"} if tp > 1 else {}
        self._ranks = [
            subprocess.Popen(
                [str(python), str(PLANTS / "vllm_oracle.py")], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=(folder / f"log.{rank}").open("w"),
                env={**variables, "RANK": str(rank), "LOCAL_RANK": str(rank), **shared},
            )
            for rank in range(tp)
        ]  # fmt: skip

    def load(self, checkpoint: Path, prompt: tuple[str, ...]) -> Unrecorded:
        """What each rank told of one load, and where every byte of it came from."""
        self._asked += 1
        ghost = self._folder / f"ghost-{self._asked}"
        words = [str(checkpoint), "--tp", str(self._tp), *prompt]
        asked = {"words": words, "port": free_port(), "ghost": str(ghost)}
        for rank in self._ranks:
            rank.stdin.write(json.dumps(asked) + "\n")
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


class Ghosts:
    """The ledger's account of a load against loads without the probe of checkpoints whose bytes say where they are."""

    def __init__(self, ghost: ModuleType) -> None:
        self._ghost = ghost

    def writes(self, traced: Any, rank: int) -> list[dict[str, Any]]:
        """What the probe recorded of a rank's writes."""
        streams = sorted((traced.session.folder / "streams").glob("*.sqlite"))
        loads = [events for stream in streams for _, events in self._ghost.writes_in(stream)]
        return [event for events in loads for event in events if event["rank"] == rank]

    def of(self, traced: Any, without: Unrecorded, checkpoint: Path, rank: int, writes: Any = None) -> Any:
        """The verdict on what was recorded of one rank, or on other `writes`."""
        held = {f"{rank}/{name}": one for name, one in torch.load(f"{traced.kept}.{rank}").items()}
        said = writes or self.writes(traced, rank)
        account = self._ghost.accounts(said, held, self._ghost.stored_tensors(checkpoint))
        actual = torch.load(f"{without.ghost}.{rank}")
        return self._ghost.verdict(account, tuple({name: one.numpy() for name, one in of.items()} for of in actual))


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
