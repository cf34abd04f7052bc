"""A rank's first model code tells the size of its group, once a session; nothing is told where no engine says it."""

from __future__ import annotations

import json

LOAD = """
import toyengine.ranks
from toyengine.models.toy import Model
from toyengine.reading import iterate, open_checkpoint
def load(): Model().load_weights(iterate(open_checkpoint("x")))
"""
IN_TWO_SESSIONS = """
import sys
from inspectors.probe import bootstrap
load(); load()
bootstrap.move_to(sys.argv[1]); load()
"""
OF_FOUR = "\ndef size(): return 4\n"


def sized(toy) -> None:
    """The toy engine says that its groups have four ranks."""
    ranks, adapter = toy.folder / "toyengine" / "ranks.py", next(toy.folder.glob("*adapter*.py"))
    ranks.write_text(ranks.read_text() + OF_FOUR)
    text = adapter.read_text()
    assert 'rank="toyengine.ranks:rank",' in text
    adapter.write_text(text.replace("rank=", 'tp_size="toyengine.ranks:size", rank=', 1))


def test_a_rank_is_told_once_with_the_size_of_its_group(toy):
    sized(toy)
    (event,) = toy.run(LOAD + "load(); load()").of("rank.joined")
    assert (event.rank, event.body) == (0, {"engine": "toy", "tp": 4})


def test_a_session_that_follows_another_is_told_again(toy, tmp_path, stream_reader):
    sized(toy)
    second = tmp_path / "second"
    second.mkdir()
    (second / "session.json").write_text(json.dumps(toy.manifest))
    code = (LOAD + IN_TWO_SESSIONS).replace("sys.argv[1]", repr(str(second)))
    assert len(toy.run(code).of("rank.joined")) == 1
    told = [event for path in (second / "streams").glob("*.sqlite") for event in stream_reader(path)]
    assert [event.body["tp"] for event in told if event.kind == "rank.joined"] == [4]


def test_an_engine_that_does_not_say_the_size_is_not_asked(toy):
    assert toy.run(LOAD + "load()").of("rank.joined") == []
