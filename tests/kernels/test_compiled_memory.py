"""Memory of the results of C kernels: large ones ask for huge pages, within their own bytes."""

from __future__ import annotations

import mmap
import sys

import pytest
import torch

from backends.native import huge_pages
from backends.native.huge_pages import HUGE_BYTES, prefer_huge_pages


@pytest.fixture
def advised(monkeypatch):
    """(address, bytes, advice) of every call of the system."""
    calls = []

    class System:
        def madvise(self, address, size, advice):
            calls.append((address.value, size.value, advice))
            return -1  # a system without huge pages

    monkeypatch.setattr(huge_pages, "_system", System)
    monkeypatch.setattr(sys, "platform", "linux")
    return calls


def test_a_large_tensor_is_advised_within_its_own_bytes_and_on_whole_pages(advised):
    memory = torch.arange(5 * HUGE_BYTES, dtype=torch.uint8)
    tensor = memory[5:]
    assert prefer_huge_pages(tensor) is tensor
    ((start, size, advice),) = advised
    assert start % mmap.PAGESIZE == size % mmap.PAGESIZE == 0
    assert tensor.data_ptr() <= start < start + size <= tensor.data_ptr() + tensor.nbytes
    assert size > 4 * HUGE_BYTES
    assert advice == mmap.MADV_HUGEPAGE
    assert torch.equal(memory, torch.arange(5 * HUGE_BYTES, dtype=torch.uint8))


def test_small_tensors_and_those_of_other_devices_and_systems_are_left_alone(advised, monkeypatch):
    prefer_huge_pages(torch.empty(HUGE_BYTES, dtype=torch.uint8))
    prefer_huge_pages(torch.empty(8 * HUGE_BYTES, dtype=torch.uint8, device="meta"))
    monkeypatch.setattr(sys, "platform", "darwin")
    prefer_huge_pages(torch.empty(8 * HUGE_BYTES, dtype=torch.uint8))
    assert advised == []
