"""`loadscope replay`: the same load again, what of it differs, and what of a session is never obeyed."""

from __future__ import annotations

import dataclasses
import json
import shlex
import shutil
import sqlite3
import sys
from pathlib import Path

import pytest

from sessions.alignment import align
from sessions.legitimate import IGNORED_KINDS
from sessions.manifest import Manifest
from sessions.recipe import Recipe
from sessions.session import Session
from workbench import arming
from workbench.errors import INCOMPLETE, USAGE, UserError
from workbench.replay.again import Asked, again, printable

needs_pth = pytest.mark.skipif(arming.pth_file() is None, reason="this Python has no loadscope.pth; install the wheel")


@pytest.fixture(scope="module")
def recorded(demo) -> Path:
    return Path(demo.json["session"])


@pytest.fixture(scope="module")
def replayed(loadscope, recorded, home):
    """The plain demo done again and kept, once for all tests."""
    return loadscope("replay", recorded, "--json", "--keep", home / "replayed")


@pytest.fixture
def copied(recorded, tmp_path):
    """A copy of the recording, its manifest changed; for sessions that must not be trusted."""

    def make(**changes: object) -> Path:
        folder = Path(shutil.copytree(recorded, tmp_path / f"copy-{len(list(tmp_path.iterdir()))}"))
        dataclasses.replace(Manifest.read(folder), **changes).write(folder)
        return folder

    return make


def edited(folder: Path, statement: str, *values: object) -> Path:
    (stream,) = (folder / "streams").glob("*.sqlite")
    with sqlite3.connect(stream) as db:
        assert db.execute(statement, values).rowcount > 0
    db.close()
    return folder


def refused(folder: Path, **asked: object) -> UserError:
    session = Session.open(folder)
    try:
        with pytest.raises(UserError) as caught:
            again(session, Asked(output=str(folder.parent / "never made"), **asked))
    finally:
        session.close()
    assert not (folder.parent / "never made").exists()
    return caught.value


def test_a_load_done_again_does_not_differ_in_any_event(replayed, demo, recorded):
    said = replayed.json
    assert (replayed.exit_code, said["outcome"], said["first_difference"], said["host"]) == (0, "ok", None, None)
    session = Session.open(recorded)
    assert said["alike"] == len(session) - sum(session.count(kind) for kind in IGNORED_KINDS)
    assert said["differing"] == {}
    session.close()


def test_a_load_that_failed_fails_again_in_the_same_way_and_leaves_nothing_behind(loadscope, failed_demo, home):
    before = sorted((home / "state").rglob("session.json"))
    done = loadscope("replay", failed_demo.json["session"])
    assert done.exit_code == 0, done.stderr
    assert "verdict   no event differs" in done.stdout
    assert sorted((home / "state").rglob("session.json")) == before


CHANGES = {
    "loader.called": ("UPDATE body_loader_called SET shard_id = 1 WHERE seq = ?", ["shard_id"]),
    "shard.split": ("UPDATE body_shard_split SET start = start + 1 WHERE seq = ?", ["start"]),
    "weight.written": ("UPDATE body_weight_written SET elements = elements + 1 WHERE seq = ?", ["elements"]),
    "skip.decided": ("UPDATE body_skip_decided SET is_skipped = NOT is_skipped WHERE seq = ?", ["is_skipped"]),
    "kernel.launched": ("UPDATE body_kernel_launched SET shapes = (SELECT max(shapes) FROM body_kernel_launched) "
                        "WHERE seq = ?", ["shapes"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", CHANGES)
def test_what_the_replay_did_otherwise_is_found_where_it_is(kind, copied, replayed):
    folder = copied()
    session, (statement, fields) = Session.open(folder), CHANGES[kind]
    positions = [row[0] for row in session.rows(kind, ())]
    position = positions[len(positions) // 3]
    session.close()
    edited(folder, statement, position + 1)
    session, other = Session.open(folder), Session.open(Path(replayed.json["replay"]))
    found = align(session, other)
    same = [row[0] for row in other.rows(kind, ())][len(positions) // 3]
    assert [(one.sort, one.first, one.second) for one in found.differences] == [("changed", position, same)]
    assert [one.name for one in found.fields(found.differences[0])] == fields
    session.close()
    other.close()


def test_the_report_names_the_event_both_values_and_what_came_before(copied, replayed, loadscope):
    folder = copied()
    seq = Session.open(folder).of_kinds("loader.called").__next__().seq
    edited(folder, "UPDATE body_loader_called SET tensor_bytes = 7 WHERE seq = ?", seq)
    edited(folder, "DELETE FROM event WHERE seq = (SELECT max(seq) FROM body_weights_processed)")
    done = loadscope("replay", folder, "--against", replayed.json["replay"])
    assert done.exit_code == 1
    assert f"#{seq:,} rank 0 loader.called model.layers.0" in done.stdout
    assert "tensor_bytes: 7 → 128" in done.stdout
    assert "after     #" in done.stdout
    assert "inside    #" in done.stdout
    assert "and       1 more: weights.processed 1 extra" in done.stdout


def test_a_checkpoint_that_is_gone_or_changed_is_refused_and_may_be_named(copied, own_model, tmp_path):
    gone = refused(copied(model=str(tmp_path / "moved away"), scenario=None))
    assert (gone.exit_code, "--model PATH" in gone.try_) == (INCOMPLETE, True)
    folder = copied()
    session = Session.open(folder)
    assert again(session, Asked(model=own_model, output=str(tmp_path / "out"))).host.manifest.model == str(own_model)
    session.close()
    file = min(own_model.glob("*.safetensors"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    changed = refused(folder, model=own_model)
    assert changed.exit_code == INCOMPLETE
    assert f"{file.name} has other contents" in changed.what
    file.unlink()
    assert f"{file.name} is not there" in refused(folder, model=own_model).what


def test_a_command_of_a_session_is_shown_and_not_executed_unasked(copied, tmp_path, loadscope):
    trap = (sys.executable, "-c", f"open({str(tmp_path / 'ran')!r}, 'w')  # \x1b[2J")
    folder = copied(engine="", command=trap, recipe=Recipe(folder=str(tmp_path)))
    done = loadscope("replay", folder)
    assert done.exit_code == USAGE
    assert "add --run" in done.stderr
    assert "would execute" in done.error_lines[0]
    assert "\x1b" not in done.stderr
    assert not (tmp_path / "ran").exists()


def test_the_command_of_a_load_is_built_anew_and_never_taken_from_the_session(copied, tmp_path):
    folder = copied(command=("rm", "-rf", "/"), engines=("os",), inspectors=("antigravity",))
    session = Session.open(folder)
    host = again(session, Asked(output=str(tmp_path / "out"))).host
    session.close()
    assert "rm" not in host.manifest.command
    assert host.manifest.command[0] == sys.executable
    assert host.manifest.engines == ("backends.engines.native",)
    assert "antigravity" not in host.manifest.inspectors


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"engine": "os"}, "unknown engine 'os'"),
        ({"engine": "sglang", "recipe": Recipe(extra=("--trust-remote-code",))}, "--trust-remote-code"),
        ({"engine": "sglang", "recipe": Recipe(python="/tmp/evil")}, "/tmp/evil"),  # noqa: S108 - never opened
        ({"level": "everything"}, "unknown level"),
        ({"scenario": "no-such"}, "unknown scenario"),
        ({"recipe": Recipe(planted="os")}, "unknown scenario"),
        ({"device": "toaster"}, "unknown device"),
    ],
)
def test_what_only_the_session_vouches_for_is_refused(copied, changes, told):
    error = refused(copied(**changes))
    assert told in error.what
    assert error.exit_code in {USAGE, INCOMPLETE}


def test_a_malformed_recipe_is_two_lines(copied, loadscope):
    folder = copied()
    facts = json.loads((folder / "session.json").read_text())
    facts["recipe"]["extra"] = "--load-only"
    (folder / "session.json").write_text(json.dumps(facts))
    done = loadscope("replay", folder)
    assert done.exit_code == INCOMPLETE
    assert len(done.error_lines) == 2
    assert "'extra' of the recipe" in done.error_lines[0]


def test_a_replay_whose_time_is_over_is_interrupted_and_says_so(loadscope, recorded):
    done = loadscope("replay", recorded, "--timeout", "0.05", "--json")
    assert done.exit_code == INCOMPLETE
    assert "had not ended after 0.05 s" in done.json["error"]["what"]


@needs_pth
def test_a_command_runs_again_in_its_folder_with_consent(copied, tmp_path):
    code = "import os; open('ran', 'w').write(os.environ['LOADSCOPE_SESSION'])"
    (tmp_path / "there").mkdir()
    recipe = Recipe(folder=str(tmp_path / "there"))
    session = Session.open(copied(engine="", command=(sys.executable, "-c", code), recipe=recipe))
    host = again(session, Asked(output=str(tmp_path / "out"), may_run=True)).host
    session.close()
    host.start()
    assert host.wait().state == "ok"
    assert (tmp_path / "there" / "ran").read_text() == str(tmp_path / "out")


def test_control_characters_are_never_sent_to_the_terminal():
    assert printable("a\x1b[31m\nb") == "a\\x1b[31m\\nb"
    assert shlex.split(printable(shlex.join(["a b", "c"]))) == ["a b", "c"]
