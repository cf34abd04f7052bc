"""Two ranks of vLLM that meet in collectives are stepped together: held at the same call, and nobody waits for ever."""

from __future__ import annotations

from collections import Counter

import pytest

from sessions.session import Session

pytestmark = pytest.mark.engine


def test_ranks_that_meet_in_collectives_are_held_at_the_same_call_and_generate_afterwards(
    step_ranks, vllm_checkpoint, vllm_python
):
    with step_ranks(vllm_checkpoint("Qwen3ForCausalLM/bf16"), "vllm", vllm_python) as held:
        held.settle()
        for number in (1, 2, 3):
            first, second = held.step("next")
            assert first == second
            assert [place.number for place in held.together.ranks()] == [number, number]
        held.together.breakpoints(['parameter ~ "*layers.1.*qkv_proj*" and rank = 1', "exception"])
        for shard_id in ("'k'", "'q'", "'v'"):
            first, second = held.step("breakpoint")
            assert first == second
            assert first["shard_id"] == shard_id
        windows = []
        for rank in (0, 1):
            assert held.together.show(rank)
            windows.append(held.together.inspect("parameter")["window"])
        assert windows[0] != windows[1]
        # What the groups of the host say, not what is usual: vLLM makes them with torch's default.
        assert {place.timeouts.get("gloo") for place in held.together.ranks()} == {1800.0}
        held.together.breakpoints([])
        held.together.run("breakpoint")  # through the rest of the load in rounds, then through the collectives
        while held.together.wait(5)["state"] != "ended":
            assert held.together.ranks()
    assert held.code == 0, held.log()
    assert held.log().count("generated") == 2
    session = Session.open(held.folder)
    by_rank = Counter(call.rank for call in session.of_kinds("loader.called"))
    session.close()
    assert by_rank[0] == by_rank[1] > 10
