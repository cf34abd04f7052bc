"""Drawing tokens: what temperature, top-k and top-p leave, seeds, and ranks that agree."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.native.errors import SamplingError
from backends.native.generate import generate
from backends.native.loader import LoadOptions, load
from backends.native.sampling import Sampling, choose, probabilities

PROMPT = [5, 6, 7]


def random_logits(seed, size=40):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)) * 3


@settings(deadline=None)  # the first call imports transformers
@given(
    st.integers(0, 1000),
    st.floats(0.2, 3),
    st.integers(0, 50),
    st.one_of(st.just(1.0), st.floats(0.05, 0.99)),
)
def test_what_is_left_has_the_probabilities_that_transformers_gives_it(seed, temperature, top_k, top_p):
    process = pytest.importorskip("transformers.generation.logits_process")
    expected = process.TemperatureLogitsWarper(temperature)(None, random_logits(seed)[None])
    if top_k:
        expected = process.TopKLogitsWarper(min(top_k, 40))(None, expected)
    if top_p < 1:
        expected = process.TopPLogitsWarper(top_p)(None, expected)
    found = probabilities(random_logits(seed), Sampling(temperature, top_k, top_p))
    assert torch.allclose(found, expected[0].softmax(-1), atol=1e-6)


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(1.0, top_k=1), Sampling(1.0, top_p=1e-9), Sampling(1e-3)])
def test_nothing_is_left_to_chance_where_one_token_remains(sampling):
    logits = random_logits(3)
    assert choose(logits, sampling, sampling.generator()) == logits.argmax()


def test_tokens_are_drawn_as_often_as_they_are_likely():
    logits, sampling = torch.tensor([2.0, 1.0, 0.0, -1.0]), Sampling(1.5, top_k=3, seed=1)
    generator = sampling.generator()
    counts = torch.zeros(4)
    for _ in range(4000):
        counts[choose(logits, sampling, generator)] += 1
    assert torch.allclose(counts / 4000, probabilities(logits, sampling), atol=0.03)
    assert counts[3] == 0


def test_a_seed_repeats_a_sequence_and_another_seed_does_not(tiny):
    loaded = load(tiny)
    first, again, other = (generate(loaded, PROMPT, 8, Sampling(2.0, seed=seed)) for seed in (4, 4, 5))
    assert first == again != other


def test_the_ranks_continue_with_the_same_drawn_token(tiny):
    sampling = Sampling(2.0, top_k=50, top_p=0.95, seed=3)
    alone, together = (
        generate(load(tiny, LoadOptions(tp_size=tp_size, dtype=torch.float32)), PROMPT, 6, sampling)
        for tp_size in (1, 2)
    )
    assert alone == together


def test_the_token_of_rank_0_counts_where_ranks_would_choose_differently(tiny, monkeypatch):
    from backends.native import generate as module

    monkeypatch.setattr(module, "choose", lambda *_: 10 + module.tp_rank())
    assert generate(load(tiny, LoadOptions(tp_size=2)), PROMPT, 2) == [10, 10]


def test_generation_ends_after_a_stop_token(tiny):
    loaded = load(tiny)
    everything = generate(loaded, PROMPT, 4)
    assert generate(loaded, PROMPT, 4, stop_ids={everything[1]}) == everything[:2]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": -1}, "temperature is -1, expected 0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_k": -1}, "top_k is -1"),
        ({"top_p": 0}, "top_p is 0, expected above 0 and at most 1"),
        ({"top_p": 1.5}, "top_p is 1.5"),
    ],
)
def test_a_value_out_of_range_is_an_error_that_names_it(values, message):
    with pytest.raises(SamplingError, match=message):
        Sampling(**values)
