"""Tensors as views of a mapped file: every dtype, odd places, and entries that lie about the file."""

from __future__ import annotations

import gc

import pytest
import torch
from safetensors.torch import load_file, save_file

from backends.native.checkpoint.header import DTYPE_BITS, TensorEntry, read_header
from backends.native.checkpoint.mapped import DTYPES, MappedFile
from backends.native.errors import CheckpointError

DTYPES_HERE = sorted(set(DTYPES) - {"F4"})


def bytes_of(tensor):
    return tensor.contiguous().flatten().view(torch.uint8)


@pytest.fixture
def path(tmp_path):
    values = torch.arange(48, dtype=torch.uint8)
    tensors = {
        name: (values % 2 if name == "BOOL" else values.clone()).view(DTYPES[name]).view(2, -1) for name in DTYPES_HERE
    }
    save_file({**tensors, "scalar": torch.tensor(2.5), "none": torch.zeros(3, 0, 2)}, tmp_path / "a.safetensors")
    return tmp_path / "a.safetensors"


def test_every_dtype_of_the_format_is_read_as_the_library_reads_it(path):
    expected, mapped = load_file(path), MappedFile(path)
    found = {entry.name: mapped.tensor(entry) for entry in read_header(path)}
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert (tensor.dtype, tensor.shape) == (expected[name].dtype, expected[name].shape)
        assert torch.equal(bytes_of(tensor), bytes_of(expected[name]))


def test_every_dtype_that_a_header_may_have_is_known(path):
    assert set(DTYPES) <= set(DTYPE_BITS)
    assert all(DTYPES[name].itemsize * 8 == DTYPE_BITS[name] for name in DTYPES_HERE)


def test_pairs_of_float4_are_bytes(path):
    if "F4" not in DTYPES:
        pytest.skip(f"torch {torch.__version__} has no float4")
    tensor = MappedFile(path).tensor(TensorEntry("a", "F4", (3, 4), 8, 14))
    assert tensor.shape == (3, 2)
    assert tensor.dtype == DTYPES["F4"]


def test_a_tensor_at_an_odd_place_is_copied_and_the_same(path):
    content = path.read_bytes()
    tensor = MappedFile(path).tensor(TensorEntry("a", "F32", (2, 2), 9, 25))
    assert tensor.data_ptr() % 4 == 0
    assert bytes_of(tensor).numpy().tobytes() == content[9:25]


def test_a_tensor_outlives_the_file_it_came_from(path):
    expected = path.read_bytes()[16:24]
    tensor = MappedFile(path).tensor(TensorEntry("a", "U8", (8,), 16, 24))
    path.unlink()
    gc.collect()
    assert tensor.numpy().tobytes() == expected


def test_writing_into_a_tensor_leaves_the_file_as_it_is(path):
    before = path.read_bytes()
    MappedFile(path).tensor(TensorEntry("a", "U8", (8,), 16, 24)).fill_(7)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("dtype", "shape", "start", "end"),
    [
        ("F32", (1 << 40,), 16, 16 + (1 << 42)),
        ("F32", (4,), 16, 24),
        ("F32", (-2, -2), 16, 32),
        ("U8", (8,), -8, 0),
        ("U8", (0,), 1 << 50, 1 << 50),
        ("F4", (3, 3), 16, 20),
    ],
)
def test_an_entry_that_does_not_fit_the_file_or_its_shape_is_an_error_in_two_lines(path, dtype, shape, start, end):
    with pytest.raises(CheckpointError, match=r"tensor a .* lies at bytes") as caught:
        MappedFile(path).tensor(TensorEntry("a", dtype, shape, start, end))
    assert str(caught.value).split("\n")[1].startswith("  try: ")


def test_a_dtype_that_this_torch_lacks_is_an_error_that_names_it(path):
    with pytest.raises(CheckpointError, match="tensor a is F7, which torch"):
        MappedFile(path).tensor(TensorEntry("a", "F7", (8,), 16, 24))


def test_a_file_that_is_gone_is_an_error_that_names_it(path):
    path.unlink()
    with pytest.raises(CheckpointError, match=r"a\.safetensors cannot be mapped"):
        MappedFile(path)
