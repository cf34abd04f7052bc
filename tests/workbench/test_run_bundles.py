"""`loadscope run --on failure`: what is left of a failed, hanging or killed command, and that it opens anywhere."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from sessions.bundle.unpacking import unpack
from sessions.session import Session
from workbench import arming

pytestmark = pytest.mark.skipif(
    arming.pth_file() is None, reason="this Python has no loadscope.pth; install the wheel to run a command armed"
)

HANGS = """
import sys, threading
from backends.native.checkpoint.index import open_checkpoint
def wait_for_ever(path):
    open_checkpoint(path)
    print("token", "hf_0123456789abcdefghij", flush=True)
    threading.Event().wait()
wait_for_ever(sys.argv[1])
"""


@pytest.fixture(scope="module")
def failed(loadscope, model, home):
    """A load that fails in a loader's creation, run by a command of the person's own, kept as a bundle."""
    fallback = '{"in_proj_ba": ["in_proj_b", "in_proj_a"], "in_proj_qkvz": ["in_proj_qkv", "in_proj_z"]}'
    command = (sys.executable, "-m", "backends.native", model, "--tp", 4, "--load-only", "--fused-fallback", fallback)
    bundle = home / "kept" / "failed.loadscope.zip"
    words = ("--json", "-q", "--on", "failure", "--bundle", bundle, "-o", home / "failed-run")
    return loadscope("run", *words, "--", *command)


def test_a_failed_command_leaves_a_bundle_and_says_where(failed, home):
    assert failed.exit_code == 4, failed.stderr
    assert failed.json["bundle"] == str(home / "kept" / "failed.loadscope.zip")
    assert Path(failed.json["bundle"]).is_file()


def test_a_bundle_is_diagnosed_without_the_session_it_came_from(failed, loadscope, tmp_path):
    carried = shutil.copy(failed.json["bundle"], tmp_path / "x.zip")
    ran = loadscope("diagnose", "--json", carried)
    assert ran.exit_code == 1, ran.stderr
    assert [(f["id"], f["title"]) for f in ran.json["findings"]] == [
        (f["id"], f["title"]) for f in failed.json["findings"]
    ]
    assert "skip-decision/fused-name" in str(ran.json["findings"][0])
    exported = loadscope("export", carried, "--format", "jsonl")
    assert len(exported.stdout.splitlines()) > 100


def test_a_command_that_ends_well_leaves_none_unless_asked(loadscope, model, tmp_path):
    command = (sys.executable, "-m", "backends.native", model, "--load-only")
    kept = tmp_path / "kept.zip"
    ran = loadscope("run", "--json", "-q", "--on", "failure", "--bundle", kept, "-o", tmp_path / "s", "--", *command)
    assert (ran.exit_code, "bundle" in ran.json, kept.exists()) == (0, False, False), ran.stderr
    ran = loadscope("run", "--json", "-q", "--on", "always", "--bundle", kept, "-o", tmp_path / "t", "--", *command)
    assert (ran.exit_code, ran.json["bundle"]) == (0, str(kept))


def test_a_command_that_hangs_is_ended_and_what_it_was_doing_is_kept(loadscope, model, tmp_path):
    (tmp_path / "hangs.py").write_text(HANGS, encoding="utf-8")
    kept = tmp_path / "hung.zip"
    words = ("--json", "-q", "--on", "failure", "--timeout", 8, "--bundle", kept, "-o", tmp_path / "s")
    ran = loadscope("run", *words, "--", sys.executable, tmp_path / "hangs.py", model)
    assert ran.exit_code == 4, ran.stderr
    assert "did not end within 8.0 s" in ran.error_lines[-2]
    folder = unpack(kept, tmp_path / "cache")
    stacks = (folder / "stacks.txt").read_text(encoding="utf-8")
    assert "hangs.py:7 wait_for_ever" in stacks
    assert "thread MainThread" in stacks
    assert "hf_0123456789abcdefghij" not in (folder / "host.log").read_text(encoding="utf-8")
    session = Session.open(folder)
    assert session.manifest.outcome.extra == {"timed_out_after_s": 8.0}
    assert session.count("checkpoint.opened") == 1
    session.close()


def test_a_killed_command_leaves_a_bundle(loadscope, model, tmp_path):
    code = f"""
import os, signal
from backends.native.checkpoint.index import open_checkpoint
open_checkpoint({str(model)!r})
import time; time.sleep(0.5)
os.kill(os.getpid(), signal.SIGKILL)
"""
    kept = tmp_path / "killed.zip"
    words = ("--json", "-q", "--on", "failure", "--bundle", kept, "-o", tmp_path / "s")
    ran = loadscope("run", *words, "--", sys.executable, "-c", code)
    assert ran.exit_code == 4, ran.stderr
    session = Session.open(unpack(kept, tmp_path / "cache"))
    assert (session.manifest.outcome.signal, session.count("checkpoint.opened")) == ("SIGKILL", 1)
    session.close()


def test_a_bundle_that_cannot_be_written_is_told_and_the_session_stays(loadscope, tmp_path):
    (tmp_path / "file").touch()
    words = ("-q", "--on", "always", "--bundle", tmp_path / "file" / "x.zip", "-o", tmp_path / "s")
    ran = loadscope("run", *words, "--", sys.executable, "-c", "pass")
    assert ran.exit_code == 2
    assert "the bundle cannot be written" in ran.error_lines[-2]
    assert str(tmp_path / "s") in ran.error_lines[-1]
    assert (tmp_path / "s" / "session.json").exists()


def test_a_file_that_is_no_bundle_is_refused_in_two_lines(loadscope, tmp_path):
    path = tmp_path / "x.zip"
    path.write_bytes(b"PK\x03\x04" + b"\x00" * 50)
    ran = loadscope("diagnose", path)
    assert ran.exit_code == 5
    assert len(ran.error_lines) == 2
    assert "not a bundle" in ran.error_lines[0]
