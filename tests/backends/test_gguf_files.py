"""GGUF files: which belong together, what their headers say, and how broken ones are told."""

from __future__ import annotations

import shutil
import struct

import gguf
import pytest
import torch

from backends.native.checkpoint.gguf_files import gguf_files
from backends.native.checkpoint.gguf_header import LongArray, read_gguf_header
from backends.native.checkpoint.gguf_synthesize import all_of, write_gguf
from backends.native.checkpoint.index import open_checkpoint
from backends.native.checkpoint.reader import iterate_weights
from backends.native.config import read_config
from backends.native.errors import CheckpointError, ConfigError, UnknownNameError
from backends.native.loader import load
from backends.native.models import llama, qwen3_5_moe, qwen3_moe, qwen3_next

SMALL = {"num_hidden_layers": 1, "vocab_size": 300, "hidden_size": 256, "intermediate_size": 256, "rope_scaling": None}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_gguf(tmp_path_factory.mktemp("gguf") / "model.gguf", llama.tiny_config() | SMALL, seed=1)


def changed(file, tmp_path, old: bytes, new: bytes):
    content = file.read_bytes()
    assert content.count(old) >= 1
    assert len(old) == len(new)
    target = tmp_path / "changed.gguf"
    target.write_bytes(content.replace(old, new, 1))
    return target


def described(name: bytes, *dims: int, type_number: int) -> bytes:
    """A tensor as its header describes it, without the offset."""
    return name + struct.pack(f"<I{len(dims)}QI", len(dims), *dims, type_number)


def test_the_header_says_what_the_library_reads(file):
    found, expected = read_gguf_header(file), gguf.GGUFReader(file)
    assert {
        tensor.name: (tensor.ggml_type.number, tensor.start_byte, tensor.size_bytes) for tensor in found.tensors
    } == {
        tensor.name: (int(tensor.tensor_type), int(tensor.data_offset), int(tensor.n_bytes))
        for tensor in expected.tensors
    }
    for tensor in expected.tensors:
        shape = next(one.shape for one in found.tensors if one.name == tensor.name)
        assert list(shape) == tensor.shape.tolist()[::-1]
    assert found.metadata["llama.embedding_length"] == 256
    assert found.metadata["tokenizer.ggml.token_type"] == (1,) * 256 + (3,) * 44


def test_a_long_vocabulary_is_counted_and_not_kept(tmp_path):
    file = write_gguf(tmp_path / "model.gguf", llama.tiny_config() | SMALL | {"vocab_size": 2048}, seed=1)
    assert read_gguf_header(file).metadata["tokenizer.ggml.tokens"] == LongArray(2048)
    assert read_config(file).fields["vocab_size"] == 2048


def test_tensors_are_views_of_the_mapped_file_with_the_bytes_that_the_library_reads(file):
    stored = {tensor.name: tensor.data for tensor in gguf.GGUFReader(file).tensors}
    for name, tensor in iterate_weights(open_checkpoint(file)):
        expected = torch.from_numpy(stored[name].copy())
        assert torch.equal(tensor.flatten().view(torch.uint8), expected.flatten().view(torch.uint8)), name
        assert 0 <= file.stat().st_size - tensor.untyped_storage().nbytes() < tensor.itemsize


@pytest.mark.parametrize("module", [llama, qwen3_moe, qwen3_next, qwen3_5_moe], ids=lambda m: m.ARCHITECTURES[-1])
def test_metadata_become_the_fields_of_the_config_they_were_written_from(tmp_path, module):
    config = module.tiny_config()
    fields = config.get("text_config", config)
    fields["rope_scaling"] = None
    found = read_config(write_gguf(tmp_path / "model.gguf", config, seed=1, types=all_of("F16")))
    assert found.architecture == module.ARCHITECTURES[-1]
    same = set(fields) & set(found.fields) - {"architectures", "dtype", "rope_parameters", "intermediate_size"}
    assert len(same) >= 12
    assert {name: found.fields[name] for name in same} == {name: fields[name] for name in same}
    nested = fields.get("rope_parameters", fields)
    assert found.fields["rope_parameters"]["rope_theta"] == nested["rope_theta"]
    expected = nested.get("partial_rotary_factor", 1.0)
    assert found.fields["rope_parameters"]["partial_rotary_factor"] == expected


def test_factors_of_the_rotary_frequencies_are_those_of_llama3(tmp_path):
    config = llama.tiny_config() | SMALL
    scaled = llama.LlamaConfig.from_fields(llama.tiny_config()).rope
    plain = llama.LlamaConfig.from_fields(config).rope
    file = write_gguf(tmp_path / "plain.gguf", config, seed=1)
    writer = gguf.GGUFWriter(tmp_path / "scaled.gguf", "llama")
    reader = gguf.GGUFReader(file)
    for key in (
        "block_count",
        "embedding_length",
        "attention.head_count",
        "attention.head_count_kv",
        "attention.key_length",
        "feed_forward_length",
    ):
        writer.add_uint32(f"llama.{key}", int(reader.fields[f"llama.{key}"].contents()))
    writer.add_float32("llama.rope.freq_base", 500000.0)
    factors = (plain.frequencies(128) / scaled.frequencies(128)).numpy()
    writer.add_tensor("rope_freqs.weight", factors)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    for write in (
        writer.write_header_to_file,
        writer.write_kv_data_to_file,
        writer.write_tensors_to_file,
        writer.close,
    ):
        write()
    loaded = load(tmp_path / "scaled.gguf")
    assert torch.allclose(loaded.models[0].model.rotary_emb.inv_freq, scaled.frequencies(128), rtol=1e-6)
    assert "rope_freqs.weight" in loaded.reports[0].ignored


def test_the_files_of_a_split_are_one_checkpoint_by_any_of_them_or_by_their_folder(tmp_path, file):
    first = write_gguf(tmp_path / "split.gguf", llama.tiny_config() | SMALL, seed=1, split_tensors=5)
    parts = sorted(tmp_path.glob("*.gguf"))
    assert len(parts) == 3
    assert gguf_files(parts[1]) == gguf_files(tmp_path) == gguf_files(first) == tuple(parts)
    split, whole = (dict(iterate_weights(open_checkpoint(one))) for one in (tmp_path, file))
    assert split.keys() == whole.keys()
    assert all(torch.equal(split[name], whole[name]) for name in whole)
    assert load(tmp_path).reports[0].never_used == ()
    parts[2].unlink()
    with pytest.raises(CheckpointError, match=r"split-00003-of-00003.gguf is not there"):
        load(parts[0])


def test_of_two_models_in_a_folder_neither_is_chosen(tmp_path, file):
    for name in ("a.gguf", "b.gguf", "mmproj-a.gguf"):
        shutil.copy(file, tmp_path / name)
    with pytest.raises(CheckpointError, match=r"holds 2 models: a.gguf, b.gguf"):
        load(tmp_path)


def test_a_file_that_ends_early_names_the_tensor_or_the_key_that_is_cut(tmp_path, file):
    content, cut = file.read_bytes(), tmp_path / "cut.gguf"
    cut.write_bytes(content[:-100])
    with pytest.raises(
        CheckpointError, match=r"truncated: tensor \S+ \S+ \[\d+(, \d+)?\] needs bytes \d+ to \d+, the file has"
    ):
        load(cut)
    cut.write_bytes(content[:2000])
    with pytest.raises(CheckpointError, match=r"truncated: metadata key tokenizer.ggml.tokens needs"):
        load(cut)
    cut.write_bytes(b"")
    with pytest.raises(CheckpointError, match="not a GGUF file: it is empty"):
        load(cut)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"GGUF\x03\0\0\0", b"GGUX\x03\0\0\0", r"begins with b'GGUX', expected b'GGUF'"),
        (b"GGUF\x03\0\0\0", b"GGUF\x01\0\0\0", r"version 1, expected 2 or 3"),
        (b"GGUF\x03\0\0\0", b"GGUF\0\0\0\x03", r"big-endian"),
        (
            described(b"blk.0.attn_q.weight", 256, 512, type_number=12),
            described(b"blk.0.attn_q.weight", 256, 512, type_number=99),
            r"tensor blk.0.attn_q.weight has the ggml type 99, expected one of BF16",
        ),
        (
            described(b"blk.0.attn_q.weight", 256, 512, type_number=12),
            described(b"blk.0.attn_q.weight", 250, 512, type_number=12),
            r"tensor blk.0.attn_q.weight \[512, 250\] is of type Q4_K, whose rows are whole blocks of 256",
        ),
        (
            described(b"blk.0.attn_q.weight", 256, 512, type_number=12),
            described(b"blk.0.attn_q.weight", 256, 999, type_number=12),
            r"inside blk.0.attn_q.weight, which ends at",
        ),
    ],
    ids=["magic", "version", "byte order", "type", "row", "size"],
)
def test_a_malformed_header_is_told_with_what_was_expected(tmp_path, file, old, new, message):
    with pytest.raises(CheckpointError, match=message) as raised:
        load(changed(file, tmp_path, old, new))
    assert "changed.gguf" in raised.value.what
    assert raised.value.remedy


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"llama.embedding_length", b"llama.embedding_lengtX", "metadata key llama.embedding_length is absent"),
        (b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0lamma", "general.architecture 'lamma' is not known"),
        (b"token_embd.weight", b"token_embX.weight", "tensor token_embd.weight is absent"),
    ],
    ids=["key", "architecture", "embedding"],
)
def test_metadata_that_do_not_describe_a_known_model_are_named(tmp_path, file, old, new, message):
    with pytest.raises((CheckpointError, UnknownNameError), match=message):
        load(changed(file, tmp_path, old, new))


def test_a_number_per_layer_is_the_one_that_is_not_zero(tmp_path, file):
    key = "llama.attention.head_count_kv"
    reader = gguf.GGUFReader(file)
    writer = gguf.GGUFWriter(tmp_path / "array.gguf", "llama")
    for name, field in reader.fields.items():
        if name.startswith("llama.") and name != key:
            writer.add_key_value(name, field.contents(), field.types[0])
    writer.add_array(key, [0, 2, 0, 2])
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    for write in (
        writer.write_header_to_file,
        writer.write_kv_data_to_file,
        writer.write_tensors_to_file,
        writer.close,
    ):
        write()
    assert read_config(tmp_path / "array.gguf").fields["num_key_value_heads"] == 2


def test_a_near_architecture_is_offered(tmp_path, file):
    with pytest.raises(UnknownNameError, match="did you mean llama"):
        load(changed(file, tmp_path, b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0lamma"))


def test_a_config_json_that_only_says_gguf_is_told_to_pass_the_file(tmp_path, small_config, as_fp8):
    from backends.native.checkpoint.synthesize import write_checkpoint

    with pytest.raises(ConfigError, match="wants tensor_types, as they are read from the header of a GGUF file"):
        write_checkpoint(
            tmp_path, small_config | {"quantization_config": {"quant_method": "gguf"}}, seed=0, max_file_bytes=1 << 30
        )
