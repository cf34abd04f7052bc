"""A session as one file: nothing lost that should be there, no secret in it, and nothing taken from a strange one."""

from __future__ import annotations

import json
import sqlite3
import zipfile
from pathlib import Path

import pytest

from inspectors.probe.events import LoaderCalled, ProcessStarted, StageFailed
from inspectors.probe.recorder import Recorder
from sessions.bundle.packing import pack
from sessions.bundle.redaction import Redactor
from sessions.bundle.unpacking import is_bundle, unpack
from sessions.errors import SessionError
from sessions.manifest import Manifest, Outcome
from sessions.session import Session

SECRET = "hf_" + "a1B2c3D4e5F6g7H8i9"
ENVIRONMENT = {"DEPLOY_TOKEN": "not-like-any-pattern", "HOME": "/home/somebody", "USE_AUTH_TOKEN": "true"}


@pytest.fixture
def failed(recordings, tmp_path: Path) -> Path:
    """A session of a load that failed, with secrets in its command, its log and its events."""
    folder = recordings.write_session(tmp_path / "failed", recordings.Plan(layers=6))
    command = ("python", "serve.py", "--api-key", "k-123456789", f"--hf-token={SECRET}")
    outcome = Outcome("failed", 1, ended="2026-01-01T00:00:00+00:00")
    Manifest(id="failed", verb="run", command=command, outcome=outcome).write(folder)
    (folder / "host.log").write_bytes(f"token: {SECRET}\nnot-like-any-pattern \xff\n".encode("latin-1"))
    (folder / "host.log.times").write_text("1 0\n2 29\n", encoding="ascii")
    recorder = Recorder(folder)
    recorder.point(ProcessStarted(argv=command))
    recorder.point(StageFailed(error="OSError", message=f"https://me:{SECRET}@host/x is not there"))
    recorder.close()
    return folder


def packed(folder: Path, **options) -> tuple[Path, object]:
    target = folder.parent / "kept" / "one.loadscope.zip"
    return target, pack(folder, target, why="a test", environment=ENVIRONMENT, **options)


def calls(session: Session) -> list[tuple]:
    """Every loader call with all its facts."""
    return [(e.seq, e.t_ns, e.dur_ns, e.parent, e.rank, e.body) for e in session.of_kinds(LoaderCalled.kind)]


def test_a_bundle_opens_elsewhere_with_every_event(failed, tmp_path, opened):
    target, _ = packed(failed)
    before = opened(failed)
    events = [
        (e.seq, e.kind, e.t_ns, e.dur_ns, e.body) for e in before.page(0, len(before)) if e.kind == LoaderCalled.kind
    ]
    carried = tmp_path / "elsewhere" / "x.zip"
    carried.parent.mkdir()
    target.rename(carried)
    after = opened(unpack(carried, tmp_path / "cache"))
    assert [
        (e.seq, e.kind, e.t_ns, e.dur_ns, e.body) for e in after.page(0, len(after)) if e.kind == LoaderCalled.kind
    ] == events
    assert len(after) == len(before) > len(events) > 0
    assert (after.damage, after.manifest.outcome.exit_code, after.log_count) == ((), 1, 2)


def test_no_secret_is_in_any_file_of_a_bundle(failed, tmp_path):
    target, contents = packed(failed)
    folder = unpack(target, tmp_path / "cache")
    data = b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())
    for secret in (SECRET, "not-like-any-pattern", "k-123456789"):
        assert secret.encode() in b"".join(p.read_bytes() for p in failed.rglob("*") if p.is_file())
        assert secret.encode() not in data
    assert contents.redacted >= 5
    assert b"somebody" not in data


def test_a_secret_is_blotted_out_without_moving_the_lines_of_the_log(failed, tmp_path):
    target, _ = packed(failed)
    folder = unpack(target, tmp_path / "cache")
    before, after = (failed / "host.log").read_bytes(), (folder / "host.log").read_bytes()
    assert len(before) == len(after)
    assert before.index(b"\n") == after.index(b"\n")
    assert after.endswith(b"\xff\n")


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("Authorization: Bearer abcdefghijk.lmnop", "abcdefghijk.lmnop"),
        ('{"token": "s3cr3t-value"}', "s3cr3t-value"),
        ("--password=hunter22", "hunter22"),
        ("postgres://user:pass-word@db/x", "user:pass-word"),
        ("AKIAABCDEFGHIJKLMNOP", "AKIAABCDEFGHIJKLMNOP"),
        ("ghp_0123456789abcdefghij", "ghp_0123456789abcdefghij"),
    ],
)
def test_what_looks_like_a_secret_goes(text, secret):
    clean = Redactor({}).text(text)
    assert secret not in clean
    assert len(clean) == len(text)


@pytest.mark.parametrize(
    "text",
    [
        "max_new_tokens: 128", "tokenizer.json: not found", "model.layers.0.self_attn.qkv_proj.weight",
        "tokens: 12345678", "http://localhost:8000/v1", "quant_method=fp8", "monkey=banana-split",
    ],
)  # fmt: skip
def test_what_is_no_secret_stays(text):
    assert Redactor({"HF_HUB_DISABLE_IMPLICIT_TOKEN": "true"}).text(text) == text


def test_a_bundle_that_is_too_heavy_leaves_out_the_least_telling_facts_first(failed, opened, tmp_path):
    target, _ = packed(failed)
    whole = target.stat().st_size
    target, contents = packed(failed, max_bytes=whole - 1)
    assert target.stat().st_size < whole
    assert contents.left_out
    assert LoaderCalled.kind not in contents.left_out
    session = opened(unpack(target, tmp_path / "cache"))
    assert session.count(LoaderCalled.kind) == opened(failed).count(LoaderCalled.kind)
    assert len(session.page(0, len(session))) == len(session)
    assert json.loads((session.folder / "bundle.json").read_text())["left_out"] == contents.left_out


def test_a_bundle_that_can_never_be_small_enough_is_refused_and_nothing_is_left(failed):
    with pytest.raises(SessionError, match="larger than 10 bytes"):
        packed(failed, max_bytes=10)
    assert list((failed.parent / "kept").iterdir()) == []


def test_a_damaged_stream_is_named_and_the_rest_is_kept(failed, tmp_path, opened):
    (failed / "streams" / "1-0.sqlite").write_bytes(b"SQLite format 3\x00" + b"\xff" * 9000)
    target, contents = packed(failed)
    assert contents.unreadable[0].startswith("1-0.sqlite")
    assert len(opened(unpack(target, tmp_path / "cache"))) > 0


def written(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


WHOLE = {"bundle.json": b'{"schema": 1}', "session.json": b"{}"}


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ({**WHOLE, "../../evil.sqlite": b""}, "evil"),
        ({**WHOLE, "/etc/passwd": b""}, "passwd"),
        ({**WHOLE, "streams/1-0.sqlite/../../x": b""}, "x"),
        ({**WHOLE, "streams/nothing.txt": b""}, "nothing"),
        ({"session.json": b"{}"}, "bundle.json"),
        ({"bundle.json": b'{"schema": 99}', "session.json": b"{}"}, "schema 99"),
        ({"bundle.json": b"[]", "session.json": b"{}"}, "JSON object"),
    ],
)
def test_a_strange_bundle_is_refused_with_nothing_written(tmp_path, members, told):
    path, cache = written(tmp_path / "b.zip", members), tmp_path / "cache"
    with pytest.raises(SessionError) as error:
        unpack(path, cache)
    assert told in error.value.what
    assert str(path) in error.value.what
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [path]


def test_a_member_that_unpacks_to_more_than_it_says_is_refused(tmp_path):
    path = written(tmp_path / "b.zip", {**WHOLE, "host.log": b"x" * 100_000})
    data = path.read_bytes()
    said = (100_000).to_bytes(4, "little")
    assert data.count(said) == 2
    path.write_bytes(data.replace(said, (10).to_bytes(4, "little")))
    with pytest.raises(SessionError, match="not a bundle"):
        unpack(path, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*/host.log"))


def test_a_bundle_cut_short_is_refused(failed, tmp_path):
    target, _ = packed(failed)
    target.write_bytes(target.read_bytes()[:-40])
    assert is_bundle(target)
    with pytest.raises(SessionError, match="not a bundle"):
        unpack(target, tmp_path / "cache")


def test_a_stream_left_by_a_killed_host_is_whole_in_a_bundle(crashed, tmp_path, opened):
    Manifest(id="crashed", outcome=Outcome("killed", signal="SIGKILL")).write(crashed)
    target = tmp_path / "x.loadscope.zip"
    pack(crashed, target, why="killed", environment={})
    session = opened(unpack(target, tmp_path / "cache"))
    assert len(session) == len(opened(crashed))
    for path in (session.folder / "streams").iterdir():
        assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_unpacking_twice_gives_the_same_folder(failed, tmp_path):
    target, _ = packed(failed)
    first = unpack(target, tmp_path / "cache")
    marked = (first / "session.json").stat().st_mtime_ns
    assert unpack(target, tmp_path / "cache") == first
    assert (first / "session.json").stat().st_mtime_ns == marked
    assert isinstance(Session.open(first), Session)
