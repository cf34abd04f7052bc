"""The triton kernel that takes packed projections apart, interpreted on a CPU or compiled on a GPU."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from backends.native.errors import KernelError
from backends.native.kernels.choice import kernel, require_runnable

pytest.importorskip("triton")
OP = "fused_qkvzba_split_reshape_cat"
HAS_GPU = torch.cuda.is_available()
SHAPES = [  # tokens, key heads, value heads, head_k_dim, head_v_dim
    (1, 1, 1, 16, 16),
    (5, 4, 32, 128, 16),
    (3, 1, 8, 16, 16),
    (7, 2, 6, 24, 20),
    (2, 16, 32, 128, 128),
]


@pytest.fixture
def split(triton_kernel):
    """The triton implementation."""
    return triton_kernel(OP)


def packed(tokens, k_heads, v_heads, k_dim, v_dim, dtype):
    """Projections in which every element is different."""
    device = "cuda" if HAS_GPU else "cpu"
    qkvz_size, ba_size = 2 * k_heads * k_dim + 2 * v_heads * v_dim, 2 * v_heads
    generator = torch.Generator().manual_seed(0)
    qkvz, ba = (torch.randn(tokens, size, generator=generator).to(device, dtype) for size in (qkvz_size, ba_size))
    return qkvz, ba, k_heads, v_heads, k_dim, v_dim


def split_by_hand(qkvz, ba, k_heads, v_heads, k_dim, v_dim):
    """Head by head with plain indexing, as an oracle for both implementations."""
    per_group = v_heads // k_heads
    width = 2 * k_dim + 2 * per_group * v_dim
    queries, keys, values, z, b, a = [], [], [], [], [], []
    for head in range(k_heads):
        group = qkvz[:, head * width : (head + 1) * width]
        queries.append(group[:, :k_dim])
        keys.append(group[:, k_dim : 2 * k_dim])
        values.append(group[:, 2 * k_dim : 2 * k_dim + per_group * v_dim])
        z.append(group[:, 2 * k_dim + per_group * v_dim :])
        b.append(ba[:, 2 * head * per_group : (2 * head + 1) * per_group])
        a.append(ba[:, (2 * head + 1) * per_group : (2 * head + 2) * per_group])
    return (
        torch.cat(queries + keys + values, -1),
        torch.cat(z, -1).view(-1, v_heads, v_dim),
        torch.cat(b, -1),
        torch.cat(a, -1),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_triton_and_reference_equal_plain_indexing(split, shape, dtype):
    arguments = packed(*shape, dtype)
    for implementation in (split, kernel(OP, "reference")):
        for found, expected in zip(implementation(*arguments), split_by_hand(*arguments), strict=True):
            assert found.shape == expected.shape
            assert found.is_contiguous()
            assert torch.equal(found, expected)


def test_projections_that_are_not_contiguous_are_read_in_their_order(split):
    qkvz, ba, *sizes = packed(3, 2, 4, 16, 16, torch.float32)
    strided = torch.stack((qkvz, qkvz), dim=-1)[..., 0]
    assert not strided.is_contiguous()
    assert torch.equal(split(strided, ba, *sizes)[0], split_by_hand(qkvz, ba, *sizes)[0])


def test_the_reference_returns_no_view_of_its_arguments():
    arguments = packed(2, 1, 2, 16, 16, torch.float32)
    taken = {tensor.untyped_storage().data_ptr() for tensor in arguments[:2]}
    assert not any(part.untyped_storage().data_ptr() in taken for part in kernel(OP, "reference")(*arguments))


def test_an_operation_without_a_triton_file_keeps_its_reference():
    assert kernel("causal_attention", "triton") is kernel("causal_attention", "reference")


def test_triton_on_a_cpu_without_its_interpreter_is_an_error(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(KernelError, match=r"its interpreter is off.\n  try: set TRITON_INTERPRET=1"):
        require_runnable("triton", "cpu")
    require_runnable("triton", "meta")  # a device without values
    require_runnable("reference", "cpu")


def test_triton_is_not_imported_by_a_load_with_reference_kernels():
    code = "import sys, backends.native.cli, backends.native.models.qwen3_next; sys.exit('triton' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0
