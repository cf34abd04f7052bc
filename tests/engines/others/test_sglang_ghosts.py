"""The ledger of SGLang's loads against ghost loads in SGLang without any probe, element by element."""

from __future__ import annotations

import os

import ghost
import pytest
import torch

pytestmark = pytest.mark.engine
VERSION, RANK, TP = "0.5.23", 1, 2
LOADS = ("packed_int8", "Qwen3MoeForCausalLM/nvfp4", "Qwen3_5ForConditionalGeneration/fp8-tensor")


@pytest.fixture(scope="module")
def accounts(trace, launch, words_of, checkpoints, tmp_path_factory):
    """Of a checkpoint: the writes that were recorded, the parameters of the rank, and its ghost; made once."""
    made = {}

    def account(checkpoint):
        if checkpoint not in made:
            made[checkpoint] = _account(checkpoint)
        return made[checkpoint]

    def _account(checkpoint):
        traced, folder = trace(VERSION, checkpoint, tp=TP, rank=str(RANK)), checkpoints(checkpoint)
        scratch = tmp_path_factory.mktemp("ghosts")
        planes = [ghost.write_plane(folder, scratch / f"plane-{n}", n) for n in range(ghost.PLANES)]
        digits = [ghost.write_digit(folder, scratch / f"digit-{n}", n) for n in range(ghost.DIGITS)]
        folders = os.pathsep.join(str(one) for one in (*planes, *digits))
        words = ("--tp", str(TP), "--rank", str(RANK), *words_of(checkpoint))
        done = launch(VERSION, folder, *words, LOADSCOPE_TEST_GHOSTS=folders)
        assert done.returncode == 0, done.stderr
        loaded = [_of_rank(torch.load(f"{one}.pt")) for one in (*planes, *digits)]
        (events,) = (events for _, events in ghost.writes_by_load(traced.session.folder) if events)
        both = ghost.joined_planes(loaded[: ghost.PLANES]), ghost.joined_digits(loaded[ghost.PLANES :])
        return events, loaded[0], ghost.stored_tensors(folder), both

    return account


def _of_rank(parameters):
    return {f"{RANK}/{name}": parameter for name, parameter in parameters.items()}


@pytest.mark.parametrize("checkpoint", LOADS)
def test_every_element_came_from_where_the_ledger_says(accounts, checkpoint):
    events, parameters, stored, both = accounts(checkpoint)
    said = ghost.verdict(ghost.accounts(events, parameters, stored), both)
    assert said.wrong == {}
    assert said.unknown == {}
    assert said.exact > 250_000


def test_a_ledger_that_is_off_by_one_row_is_found_out(accounts):
    events, parameters, stored, both = accounts(LOADS[0])
    victim = next(event for event in events if len(event["start"]) == 2 and event["source_offset"] == 0)
    shifted = [{**e, "source_offset": e["source_strides"][0]} if e is victim else e for e in events]
    said = ghost.verdict(ghost.accounts(shifted, parameters, stored), both)
    assert list(said.wrong) == [f"{RANK}/{victim['parameter']}"]
