"""A host listens on TCP only when asked, on the loopback device alone, and nothing a stranger sends does it harm."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inspectors.probe import doors, loopback
from inspectors.probe.lines import LineError, Lines
from sessions.control import Control, ControlError, NotLetInError

LOAD = """
from toyengine.models.toy import Model
from toyengine.reading import iterate, open_checkpoint
model = Model(); model.load_weights(iterate(open_checkpoint("x"))); print(model.values())
"""
RESULT = "{'a.weight': [1, 2], 'b.weight': [3, 4], 'c.weight': [5]}\n"


def note_of(toy, host) -> dict[str, object]:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and host.poll() is None:
        found = sorted((toy.session / "control").glob("*.json"))
        if found:
            return json.loads(found[0].read_text("utf-8"))
        time.sleep(0.01)
    raise AssertionError(host.stderr.read())


def port_of(note) -> int:
    return int(note["tcp"].rpartition(":")[2])


@contextmanager
def listening(toy, code: str = LOAD, **manifest) -> Iterator[tuple[dict[str, object], object]]:
    """A host that is held at its start, and listens."""
    toy.write_manifest(**{"is_paused_at_start": True, "listen": "127.0.0.1:0", **manifest})
    host = toy.start(code)
    try:
        yield note_of(toy, host), host
    finally:
        host.kill()
        host.communicate()


def stranger(note) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port_of(note)), 30)


def said_to(connection: socket.socket) -> dict[str, object] | None:
    """The one line that a host says, None when it hangs up without a word."""
    try:
        line = connection.makefile("rb").readline()
    except ConnectionResetError:
        return None
    return json.loads(line) if line else None


def released(note, host) -> str:
    with Control.at("127.0.0.1", port_of(note), note["token"]) as control:
        assert control.wait(30)["state"] == "paused"
        control.release()
        return host.communicate(timeout=60)[0]


def test_a_host_is_controlled_through_its_port(toy):
    with listening(toy) as (note, host):
        with Control.at("127.0.0.1", port_of(note), note["token"]) as control:
            assert control.pid == host.pid
            assert control.wait(30)["why"] == "start"
            control.run("next")
            assert control.wait(30)["state"] == "paused"
            assert control.inspect("source")["name"] == "a.weight"
            control.release()
            out, err = host.communicate(timeout=30)
        assert out == RESULT
        assert f"listens on {note['tcp']}; its token is in {toy.session}/control/{host.pid}.json" in err


def test_without_being_asked_a_host_listens_on_its_unix_socket_alone(toy):
    with listening(toy, listen="") as (note, _):
        assert sorted(note) == ["address", "pid", "token"]


def test_the_environment_asks_before_the_manifest(toy, monkeypatch):
    monkeypatch.setattr(toy, "environment", lambda base=toy.environment: base() | {"LOADSCOPE_LISTEN": "[::1]:0"})
    with listening(toy) as (note, _):
        assert str(note["tcp"]).startswith("[::1]:")


@pytest.mark.parametrize("address", ["0.0.0.0:0", "192.0.2.1:5678", "nonsense"])
def test_an_address_that_others_could_reach_is_refused_by_the_host_itself(toy, address):
    with listening(toy, listen=address) as (note, host):
        assert "tcp" not in note
        with Control.connect(toy.session) as control:
            assert control.wait(30)["state"] == "paused"
            control.release()
            out, err = host.communicate(timeout=30)
        assert (out, "not listening on TCP, on the Unix socket alone:" in err) == (RESULT, True)


def test_a_port_that_is_taken_gives_way_to_the_next_free_one(toy):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        wanted = taken.getsockname()[1]
        with listening(toy, listen=f"127.0.0.1:{wanted}") as (note, host):
            found = port_of(note)
            assert found != wanted
            assert found in range(wanted, wanted + loopback.PORTS_TRIED) or wanted > 0xFFFF - loopback.PORTS_TRIED
            assert released(note, host) == RESULT


def test_a_forked_child_listens_at_a_port_of_its_own(toy):
    code = (
        "import os\nfrom toyengine.models.toy import Model\nModel()\n"
        "child = os.fork()\nModel()\nif child: os.waitpid(child, 0)\n"
    )
    toy.write_manifest(is_paused_at_start=False, breakpoints=["decision"], listen="127.0.0.1:0")
    host = toy.start(code)
    ports: dict[int, int] = {}
    try:
        deadline = time.monotonic() + 60
        while host.poll() is None and time.monotonic() < deadline:
            for control in Control.connect_all(toy.session):
                with control:
                    if control.pid in ports or control.wait(30)["state"] != "paused":
                        continue
                    found = json.loads((toy.session / "control" / f"{control.pid}.json").read_text("utf-8"))
                    ports[control.pid] = port_of(found)
                    with Control.at("127.0.0.1", port_of(found), found["token"]) as other:
                        assert other.pid == control.pid
                    control.release()
            time.sleep(0.01)
        assert host.poll() == 0
        assert len(ports) == len(set(ports.values())) == 2
    finally:
        host.kill()
        host.communicate()


WRONG = [
    b'{"token": "guess"}\n',
    b'{"token": 1}\n',
    b'{"token": "\\ud800"}\n',
    b"[]\n",
    b"null\n",
    b"[" * 4000 + b"\n",
    b"1" * 4000 + b"\n",
    b"\xff\xfe\x00\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\n",
    b"x" * 100_000,
]


def test_who_does_not_say_the_token_is_shown_out_and_the_host_ends_as_it_would_without_a_word_of_it(toy):
    with listening(toy) as (note, host):
        for sent in WRONG:
            with stranger(note) as connection:
                connection.sendall(sent)
                assert said_to(connection) in ({"ok": False, "error": "wrong token"}, None), sent
        with Control.at("127.0.0.1", port_of(note), note["token"]) as control:
            control.release()
            out, err = host.communicate(timeout=30)
        assert out == RESULT
        assert [line for line in err.splitlines() if not line.startswith("loadscope: process ")] == []


def test_who_does_not_say_it_in_time_is_shown_out_however_slowly_he_speaks(toy):
    quick = "import inspectors.probe.control as control; control.TOKEN_SECONDS = 0.5\n"
    with listening(toy, quick + LOAD) as (note, host):
        with stranger(note) as silent, stranger(note) as slow:
            for _ in range(100):  # a letter now and then
                if said_now(slow) is not None:
                    break
                with contextlib.suppress(OSError):
                    slow.sendall(b" ")
            else:
                raise AssertionError("a stranger may stay as long as he speaks")
            assert said_to(silent) == {"ok": False, "error": "wrong token"}
        assert released(note, host) == RESULT


def said_now(connection: socket.socket) -> bytes | None:
    connection.settimeout(0.2)
    try:
        return connection.recv(100)
    except TimeoutError:
        return None
    except OSError:
        return b""


def test_more_strangers_than_a_door_holds_are_turned_away_and_the_unix_socket_stays_open(toy):
    with listening(toy) as (note, _):
        crowd = [stranger(note) for _ in range(doors.MAX_STRANGERS + 4)]
        try:
            assert said_to(crowd[-1]) == {"ok": False, "error": "too many connections"}
            with Control.connect(toy.session) as control:
                assert control.wait(30)["state"] == "paused"
        finally:
            for connection in crowd:
                connection.close()


def test_a_client_that_was_let_in_cannot_make_lines_of_any_length(toy):
    with listening(toy) as (note, host), Control.connect(toy.session) as keeper:
        with stranger(note) as connection:
            connection.sendall(json.dumps({"token": note["token"]}).encode() + b"\n")
            answers = connection.makefile("rb")
            assert json.loads(answers.readline())["ok"] is True
            for sent, named in ((b"{\n", "Expecting"), (b"[1]\n", "an object"), (b"[" * 90_000 + b"\n", "Recursion")):
                connection.sendall(sent)
                reply = json.loads(answers.readline())
                assert (reply["ok"], named in reply["error"]) == (False, True), reply
            with contextlib.suppress(OSError):  # it may hang up while we still send
                connection.sendall(b"x" * (3 << 20))
            try:
                rest = answers.read()
            except OSError:
                rest = b""
            assert not rest or "at most" in json.loads(rest)["error"]
        assert keeper.wait(30)["state"] == "paused"
        keeper.release()
        assert host.communicate(timeout=30)[0] == RESULT


def test_random_bytes_change_nothing(toy):
    made = random.Random(5)  # noqa: S311 - the same bytes every time
    with listening(toy) as (note, host), Control.connect(toy.session) as keeper:
        for number in range(60):
            with stranger(note) as connection:
                if number % 2:
                    connection.sendall(json.dumps({"token": note["token"]}).encode() + b"\n")
                connection.sendall(made.randbytes(made.randrange(2000)) + b"\n")
                if number % 3:
                    connection.shutdown(socket.SHUT_WR)
                    said_to(connection)
        assert keeper.wait(30)["state"] == "paused"
        keeper.release()
        out, err = host.communicate(timeout=30)
        assert out == RESULT
        assert "Traceback" not in err


def test_a_wrong_token_is_told_apart_from_nobody_listening(toy):
    with listening(toy) as (note, _):
        with pytest.raises(NotLetInError, match="wrong token"):
            Control.at("127.0.0.1", port_of(note), "guess")
        port = port_of(note)
    with pytest.raises(OSError, match=r"."):
        Control.at("127.0.0.1", port, "guess")


NAMES = ["../secret", "/etc/hostname", "streams/../session.json", "door", "tensors/x.safetensors", "control/1.json", ""]
TABLES = ["event; DROP TABLE event", 'event"', "sqlite_master --", "Event", ""]


def test_only_files_and_tables_with_a_sessions_names_are_given(toy):
    with listening(toy) as (note, _), Control.at("127.0.0.1", port_of(note), note["token"]) as control:
        control.wait(30)
        for name in NAMES:
            for request in ({"do": "piece"}, {"do": "tables"}, {"do": "rows", "table": "event"}):
                with pytest.raises(ControlError, match="is no"):
                    control.ask({**request, "name": name})
        stream = next(one["name"] for one in control.ask({"do": "files"})["files"] if "streams" in one["name"])
        for table in TABLES:
            with pytest.raises(ControlError, match="is no table"):
                control.ask({"do": "rows", "name": stream, "table": table})
        assert control.ask({"do": "rows", "name": stream, "table": "event", "after": 0})["rows"]


def test_a_link_that_leads_out_of_the_session_is_not_followed(toy):
    (toy.folder / "secret").write_text("secret", encoding="utf-8")
    toy.session.mkdir(exist_ok=True)
    (toy.session / "host.log").symlink_to(toy.folder / "secret")
    with listening(toy) as (note, _), Control.at("127.0.0.1", port_of(note), note["token"]) as control:
        names = [one["name"] for one in control.ask({"do": "files"})["files"]]
        assert "session.json" in names
        assert "host.log" not in names
        with pytest.raises(ControlError, match="is no file of this session"):
            control.ask({"do": "piece", "name": "host.log"})


@given(data=st.lists(st.binary(max_size=60), max_size=8))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_lines_are_cut_where_they_end_however_they_come(data):
    here, there = socket.socketpair()
    with here, there:
        for piece in data:
            there.sendall(piece)
        there.shutdown(socket.SHUT_WR)
        lines, found = Lines(here), []
        try:
            while line := lines.read(50, 10):
                found.append(line)
        except LineError:
            found.append(None)
        whole = b"".join(data).split(b"\n")[:-1]
        rest = b"".join(data).rpartition(b"\n")[2]
        too_long = next((n for n, line in enumerate([*whole, rest]) if len(line) > 50), None)
        wanted = (
            [line or b" " for line in whole] if too_long is None else [*(w or b" " for w in whole[:too_long]), None]
        )
        assert found == wanted


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("127.0.0.1:5678", ("127.0.0.1", 5678)),
        ("localhost:0", ("127.0.0.1", 0)),
        (":7", ("127.0.0.1", 7)),
        ("[::1]:1", ("::1", 1)),
        ("127.8.8.8:65535", ("127.8.8.8", 65535)),
    ],
)
def test_addresses_of_this_machine_are_read(text, found):
    assert loopback.parse(text) == found
    assert loopback.parse(loopback.shown(*found)) == found


@pytest.mark.parametrize(
    "text",
    ["", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "::1:5", "0.0.0.0:1", "[::]:1", "10.0.0.1:1",
     "[::ffff:8.8.8.8]:1", "[::1%eth0]:1", "host:1", "127.1:1", "127.0.0.1:٣"],
)  # fmt: skip
def test_other_addresses_are_refused(text):
    with pytest.raises(loopback.AddressError):
        loopback.parse(text)
