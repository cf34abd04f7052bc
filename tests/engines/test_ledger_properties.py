"""Random sequences of tensor operations: what the ledger says of an element is its value, or that it is not known."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

LEDGERS = importlib.util.spec_from_file_location("ledgers", Path(__file__).with_name("ledgers.py"))
ledgers = importlib.util.module_from_spec(LEDGERS)
LEDGERS.loader.exec_module(ledgers)

F16, F32, I16, U8 = torch.float16, torch.float32, torch.int16, torch.uint8
WRONG_CALL = (RuntimeError, IndexError, ValueError, TypeError, NotImplementedError)


def indices(x: Tensor, n: int, dim: int) -> Tensor:
    return torch.randperm(max(1, x.shape[dim]), generator=torch.Generator().manual_seed(n))[: 1 + n % 4]


def mask(x: Tensor, n: int) -> Tensor:
    return torch.arange(x.numel()).view(x.shape) % (2 + n % 3) == n % 2


def fitting(x: Tensor, y: Tensor) -> Tensor:
    if x.shape != y.shape or x.dtype != y.dtype:
        raise ValueError("torch would give x other memory")
    return x


VIEWS = {
    "narrow": lambda x, y, n, d: x.narrow(d, n % x.shape[d], 1 + n % (x.shape[d] - n % x.shape[d])),
    "select": lambda x, y, n, d: x.select(d, n % x.shape[d]),
    "transpose": lambda x, y, n, d: x.transpose(d, n % x.dim()),
    "flat": lambda x, y, n, d: x.view(-1),
    "flat slice": lambda x, y, n, d: x.view(-1)[n : n + 3 + d * 9],
    "refolded": lambda x, y, n, d: x.view(-1).view((2, 3, 4, 6)[n % 4], -1),
    "unfolded": lambda x, y, n, d: x.unflatten(d, (2, -1)),
    "every second": lambda x, y, n, d: x[n % 2 :: 2],
    "every third column": lambda x, y, n, d: x[..., n % 3 :: 3],
    "unsqueeze": lambda x, y, n, d: x.unsqueeze(d),
    "expand": lambda x, y, n, d: x.narrow(0, 0, 1).expand(1 + n % 4, *x.shape[1:]),
    "as int16": lambda x, y, n, d: x.view(I16),
    "as bytes": lambda x, y, n, d: x.view(U8),
    "as float32": lambda x, y, n, d: x.view(F32),
    "chunk": lambda x, y, n, d: x.chunk(2, d)[n % 2],
}
MADE = {
    "clone": lambda x, y, n, d: x.clone(),
    "contiguous": lambda x, y, n, d: x.contiguous(),
    "reshape": lambda x, y, n, d: x.reshape(-1, (1, 2, 3, 4)[n % 4]),
    "cat": lambda x, y, n, d: torch.cat([x, y], d),
    "stack": lambda x, y, n, d: torch.stack([x, y], d),
    "flip": lambda x, y, n, d: x.flip(d),
    "roll": lambda x, y, n, d: x.roll(n, d),
    "repeat": lambda x, y, n, d: x.repeat(1 + n % 2, *[1] * (x.dim() - 1)),
    "pad": lambda x, y, n, d: nn.functional.pad(x, (n % 3, d)),
    "rows": lambda x, y, n, d: x.index_select(d, indices(x, n, d)),
    "indexed": lambda x, y, n, d: x[indices(x, n, 0)],
    "masked": lambda x, y, n, d: x[mask(x, n)],
    "gather": lambda x, y, n, d: x.gather(0, (torch.arange(x.numel()) % x.shape[0]).view(x.shape)),
    "half": lambda x, y, n, d: x.to(F16),
    "float": lambda x, y, n, d: x.to(F32),
    "zeros": lambda x, y, n, d: torch.zeros_like(x),
    "empty": lambda x, y, n, d: torch.empty_like(x),
    "sum": lambda x, y, n, d: x + y,
    "doubled": lambda x, y, n, d: x * 2,
}
WRITTEN = {
    "copy_": lambda x, y, n, d: x.copy_(y),
    "copy_ again": lambda x, y, n, d: x.copy_(y),
    "copy_ of the reshaped": lambda x, y, n, d: x.copy_(y.reshape(-1)[: x.numel()].reshape(x.shape)),
    "setitem": lambda x, y, n, d: x.__setitem__(n % x.shape[0], y.select(0, d)),
    "foreach": lambda x, y, n, d: torch._foreach_copy_([x[:1], x[1:]], [y[:1], y[1:]]),
    "cat out": lambda x, y, n, d: torch.cat([y[: x.shape[0] // 2], y[x.shape[0] // 2 :]], out=fitting(x, y)),
    "index_copy_": lambda x, y, n, d: x.index_copy_(0, (i := indices(x, n, 0)), y[: len(i)]),
    "index_put_": lambda x, y, n, d: x.__setitem__((i := indices(x, n, 0)), y[: len(i)]),
    "masked_fill_": lambda x, y, n, d: x.masked_fill_(mask(x, n), 0),
    "masked put": lambda x, y, n, d: x.__setitem__(m := mask(x, n), y.reshape(-1)[: int(m.sum())]),
    "scatter_": lambda x, y, n, d: x.scatter_(0, (torch.arange(y.numel()) % y.shape[0]).view(y.shape), y),
    "zero_": lambda x, y, n, d: x.zero_(),
    "add_": lambda x, y, n, d: x.add_(1),
    "product out": lambda x, y, n, d: torch.mul(y, 2, out=fitting(x, y)),
}
ALL = {**VIEWS, **MADE, **WRITTEN}
STEPS = st.tuples(st.sampled_from(sorted(ALL)), *[st.integers(0, 11)] * 3, st.integers(0, 2))
INTO = st.tuples(
    st.sampled_from(sorted(VIEWS)), st.sampled_from(sorted(WRITTEN)), *[st.integers(0, 11)] * 3, st.integers(0, 2)
)


def run(pool: list[Tensor], steps: list[tuple[str, int, int, int, int]]) -> None:
    for name, i, j, n, d in steps:
        x, y = pool[-1 - i % len(pool)], pool[-1 - j % len(pool)]
        d = d % max(1, x.dim())  # noqa: PLW2901 - a dimension that there is
        try:
            made = ALL[name](x, y, n, d)
        except WRONG_CALL:
            continue
        if isinstance(made, Tensor) and made.numel() and not (name in WRITTEN or made.numel() > 400):
            pool.append(made)


def loader(steps, into):
    """Makes tensors of the given ones step by step, then writes some into views of the parameter."""

    def load(p: nn.Parameter, *given: Tensor) -> None:
        pool = list(given)
        run(pool, steps)
        for view, write, i, j, n, d in into:
            run([*pool[-1 - i % len(pool) :], p.data], [(write, 0, 1 + j, n, d)])
            targets = [p.data]
            run(targets, [(view, 0, 0, n, d)])
            run([*pool, targets[-1]], [(write, 0, 1 + j, n, d)])
        run([*pool, p.data], [("copy_ of the reshaped", 0, 1, 0, 0)] if not into else [])

    return load


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.lists(STEPS, max_size=8), st.lists(INTO, max_size=5)), min_size=1, max_size=2))
def test_what_the_ledger_says_of_an_element_is_its_value_or_that_it_is_not_known(calls):
    tensors = (torch.arange(1.0, 49.0).view(8, 6), torch.arange(101.0, 149.0).view(6, 8).t())
    originals = tuple(tensor.clone() for tensor in tensors)
    parameter = nn.Parameter(torch.full((8, 6), ledgers.NEVER), requires_grad=False)
    events = ledgers.recorded([loader(*call) for call in calls], parameter, *tensors)
    made, unknown = ledgers.rebuilt(parameter.data, events, *originals)
    is_same = ledgers.same_bits(made, parameter.data)
    event(f"{int(unknown.float().mean() * 4) * 25} % unknown")
    assert (is_same | unknown).all(), events
