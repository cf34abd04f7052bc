"""Opening checkpoints: what is right is read, and what is wrong is named in two lines."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from backends.native.checkpoint.index import INDEX_NAME, open_checkpoint
from backends.native.checkpoint.reader import iterate_weights
from backends.native.errors import CheckpointError

TENSORS = {
    "a": torch.arange(6.0).view(2, 3),
    "b": torch.tensor(3, dtype=torch.int64),
    "c": torch.zeros(0, 4, dtype=torch.bfloat16),
    "d": torch.arange(4, dtype=torch.uint8).view(torch.float8_e4m3fn),
}


@pytest.fixture
def folder(tmp_path):
    names = {"one.safetensors": ["a", "b"], "two.safetensors": ["c", "d"]}
    for file_name, held in names.items():
        save_file({name: TENSORS[name] for name in held}, tmp_path / file_name)
    weight_map = {name: file_name for file_name, held in names.items() for name in held}
    (tmp_path / INDEX_NAME).write_text(json.dumps({"weight_map": weight_map}))
    return tmp_path


def rewrite_header(path, change):
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])


def assert_two_lines(caught):
    what, remedy = str(caught.value).split("\n")
    assert what.endswith(".")
    assert remedy.startswith("  try: ")


def test_every_tensor_is_read_once_with_its_value_dtype_and_shape(folder):
    read = list(iterate_weights(open_checkpoint(folder)))
    assert sorted(name for name, _ in read) == sorted(TENSORS)
    for name, tensor in read:
        assert tensor.dtype == TENSORS[name].dtype
        assert tensor.shape == TENSORS[name].shape
        assert torch.equal(tensor.float(), TENSORS[name].float())


def test_byte_ranges_point_at_the_tensors_bytes(folder):
    for file in open_checkpoint(folder).files:
        content = file.path.read_bytes()
        for entry in file.entries:
            expected = load_file(file.path)[entry.name].flatten().view(torch.uint8).numpy().tobytes()
            assert content[entry.start_byte : entry.end_byte] == expected


def test_files_without_an_index_are_found(folder):
    (folder / INDEX_NAME).unlink()
    assert open_checkpoint(folder).tensor_count == len(TENSORS)


def test_a_file_the_index_does_not_name_is_not_read(folder):
    save_file({"z": torch.zeros(1)}, folder / "three.safetensors")
    assert {entry.name for entry in open_checkpoint(folder).entries()} == set(TENSORS)


def test_an_index_that_names_an_absent_file_is_an_error_that_names_both(folder):
    (folder / "two.safetensors").unlink()
    with pytest.raises(CheckpointError, match=f"{INDEX_NAME} names two.safetensors, which is not in") as caught:
        open_checkpoint(folder)
    assert_two_lines(caught)


@pytest.mark.parametrize("kept_bytes", [0, 4, 20, -1])
def test_a_cut_file_is_an_error_that_names_it(folder, kept_bytes):
    path = folder / "one.safetensors"
    path.write_bytes(path.read_bytes()[:kept_bytes])
    with pytest.raises(CheckpointError, match=r"one.safetensors is (truncated|not a safetensors file)") as caught:
        open_checkpoint(folder)
    assert_two_lines(caught)


def test_a_truncated_file_says_how_many_bytes_it_should_have(folder):
    path = folder / "one.safetensors"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-3])
    message = f"promises {size} bytes, the file has {size - 3}, tensor a ends at {size}"
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(folder)


def test_a_file_with_bytes_after_the_last_tensor_is_an_error(folder):
    path = folder / "one.safetensors"
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(CheckpointError, match=r"one.safetensors is too long"):
        open_checkpoint(folder)


def test_a_header_that_promises_terabytes_is_not_believed(folder):
    (folder / "one.safetensors").write_bytes((1 << 42).to_bytes(8, "little") + b"{}")
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda header: header["a"].pop("dtype"), "malformed header: tensor a"),
        (lambda header: header["a"].update(dtype="F7"), "malformed header: tensor a"),
        (lambda header: header["a"].update(shape=[2, 4]), "tensor a F32 .2, 4. needs 32 bytes, its range has 24"),
        (lambda header: header["a"].update(shape=[-2, -3]), "tensor a F32 .-2, -3. needs 24 bytes"),
        (lambda header: header["a"].update(data_offsets=[-24, 0]), "tensor a begins at byte"),
        (lambda header: header["a"].update(data_offsets=[0, 24]), "tensor [ab] begins at byte .*, expected"),
        (lambda header: header["a"].update(data_offsets=[16, 40]), "tensor a begins at byte"),
        (lambda header: header.pop("b"), "tensor a begins at byte .*, expected"),
        (lambda header: header.update(a=[1]), "malformed header: tensor a"),
    ],
)
def test_a_malformed_header_is_an_error_that_names_the_tensor(folder, change, message):
    rewrite_header(folder / "one.safetensors", change)
    with pytest.raises(CheckpointError, match=message) as caught:
        open_checkpoint(folder)
    assert_two_lines(caught)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 1}}'])
def test_a_malformed_index_is_an_error_that_names_it(folder, text):
    (folder / INDEX_NAME).write_text(text)
    with pytest.raises(CheckpointError, match=f"{INDEX_NAME} is malformed"):
        open_checkpoint(folder)


def test_an_index_that_disagrees_with_the_files_is_an_error_that_names_the_tensor(folder):
    (folder / INDEX_NAME).write_text(json.dumps({"weight_map": {"a": "one.safetensors", "d": "one.safetensors"}}))
    with pytest.raises(CheckpointError, match=r"says tensor d is in one.safetensors, but no file has it"):
        open_checkpoint(folder)


def test_a_tensor_in_two_files_is_an_error_that_names_both(folder):
    (folder / INDEX_NAME).unlink()
    save_file({"a": torch.zeros(1)}, folder / "zzz.safetensors")
    with pytest.raises(CheckpointError, match=r"tensor a is in one.safetensors and in zzz.safetensors"):
        open_checkpoint(folder)


def test_a_folder_without_weights_and_a_path_without_folder_are_errors(tmp_path):
    with pytest.raises(CheckpointError, match="holds no safetensors file"):
        open_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="is not a folder"):
        open_checkpoint(tmp_path / "absent")
