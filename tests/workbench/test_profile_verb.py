"""`loadscope profile` on a real load, a failed one, old ones and empty ones; its sums are checked against the files."""

import html.parser
import json
import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

from inspectors.probe.events import KernelLaunched, LoaderCalled, WeightsMapped
from inspectors.probe.recorder import Recorder
from sessions.manifest import Manifest, Outcome
from sessions.parameters import parameters
from sessions.session import Session
from workbench import machine
from workbench.cli import main
from workbench.profile.flame import blocks
from workbench.profile.profile import TABLES, Profile

GOLDEN = Path(__file__).resolve().parents[2] / "sessions" / "golden"


@pytest.fixture
def profile(capsys):
    """Runs the verb in this process: (exit code, standard output, standard error)."""

    def run(*words):
        code = main(["profile", *map(str, words)])
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


@pytest.fixture(scope="session")
def session(demo):
    opened = Session.open(Path(demo.json["session"]))
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def said(session):
    """The object of `--json`, computed once."""
    from workbench.profile.said import as_json

    return json.loads(json.dumps(as_json(Profile(session), "profile", 0, None, None, [])))


def rows(said, table):
    return {row["name"]: row for row in said["tables"][table]}


def test_each_moment_is_in_one_stage_and_in_one_block(said, session):
    assert sum(row["ns"] for row in said["tables"]["stage"]) == pytest.approx(said["total_ns"], rel=1e-9)
    assert sum(said["phases"].values()) == pytest.approx(said["total_ns"], rel=1e-9)
    for rank in (None, 0, 3):
        whole = blocks(session, rank)
        assert whole.ns == pytest.approx(Profile(session, rank).timing.total_ns, rel=1e-9)
        assert all(block.ns >= -1 for _, _, block in whole.walk())


def test_bytes_are_those_of_the_files_headers(said, model):
    expected = {}
    for file in sorted(model.glob("*.safetensors")):
        data = file.read_bytes()
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        header.pop("__metadata__", None)
        ends = [entry["data_offsets"] for entry in header.values()]
        expected[file.name] = (len(ends), sum(end - begin for begin, end in ends))
    assert {name: (row["calls"], row["bytes"]) for name, row in rows(said, "file").items()} == expected
    assert rows(said, "stage")["tensor.read"]["bytes"] == sum(size for _, size in expected.values())


def test_parameters_got_as_many_bytes_as_they_have(said, session):
    """Of the plain copies, whose dtype on disk is that of the parameter."""
    sizes = defaultdict(int)
    for row in session.rows("parameter.registered", ("parameter", "size_bytes")):
        sizes[row[6]] += row[7]
    copied = {name: row["bytes"] for name, row in rows(said, "parameter").items()}
    plain = [name for name in copied if name.endswith(("proj.weight", "experts.w13_weight"))]
    assert len(plain) > 8
    assert {name: copied[name] for name in plain} == {name: sizes[name] for name in plain}


def test_products_of_the_forward_passes_equal_a_count_by_hand(said, session):
    """Two for each token and each element of a linear module's weight, on every rank."""
    tokens = {row[1]: 0 for row in session.rows("forward.ran", ("tokens",))}
    by_rank = defaultdict(int)
    for *_, rank, count in session.rows("forward.ran", ("tokens",)):
        by_rank[rank] += count
    assert len(tokens) == 1
    elements = {(view.name, view.rank): view.elements for view in parameters(session)}
    told = rows(said, "module")
    for module in ("model.layers.0.linear_attn.in_proj_qkvz", "model.layers.3.self_attn.o_proj"):
        by_hand = sum(2 * by_rank[rank] * elements[f"{module}.weight", rank] for rank in range(4))
        assert told[module]["flops"] == by_hand


def test_the_memory_of_a_load_is_told_with_what_made_its_peak(said):
    (process,) = said["memory"]
    assert process["peak_bytes"] >= process["end_bytes"] >= process["begin_bytes"] > 0
    assert process["samples"] > 10
    assert process["peak"]["during"][0]["stage"] in {"kernel.launch", "weight.load", "weights.process"}
    grown = sum(one["rss_bytes"] for one in process["stages"].values())
    assert grown == pytest.approx(process["end_bytes"] - process["begin_bytes"], abs=1)


def test_the_machine_was_measured_when_the_session_was_recorded(said):
    assert said["machine"]["memcpy_bytes_per_s"] > 1e8
    assert said["machine"]["processors"] >= 1


def test_the_text_has_every_table_the_peak_and_the_machine(profile, demo):
    code, out, err = profile(demo.json["session"])
    assert (code, err) == (0, "")
    heads = [line.split()[0] for line in out.splitlines() if line]
    for word in ("profile", "total", "forward", "machine", "memory", "peak", *TABLES):
        assert word in heads
    assert "native::fp8_block_linear" in out
    assert re.search(r"peak +\d+ MB within [\d.]+ ms of ", out)


def test_one_table_can_be_asked_for_and_cut(profile, demo):
    code, out, _ = profile(demo.json["session"], "--by", "parameter", "--top", 3, "--json")
    told = json.loads(out)
    assert (code, list(told["tables"]), len(told["tables"]["parameter"])) == (0, ["parameter"], 3)
    times = [row["ns"] for row in told["tables"]["parameter"]]
    assert times == sorted(times, reverse=True)
    text = profile(demo.json["session"], "--by", "parameter", "--top", 3)[1]
    assert "… and 78 parameters more" in text


def test_one_rank_says_how_long_it_waited(profile, demo):
    told = json.loads(profile(demo.json["session"], "--rank", 2, "--json")[1])
    stages = rows(told, "stage")
    assert stages["waiting"]["ns"] > 0
    assert stages["weight.load"]["calls"] == 269
    assert "rss_bytes" not in stages["weight.load"]  # nobody can tell a thread's part of the process


# --- what is not there


def test_a_load_that_failed_is_profiled_up_to_there(profile, failed_demo):
    code, out, err = profile(failed_demo.json["session"])
    assert (code, err) == (0, "")
    assert "state     failed" in out
    assert "forward   not recorded: the host ended before (failed)" in out
    code, _, err = profile(failed_demo.json["session"], "--by", "kernel")
    assert code == 5
    assert len(err.splitlines()) == 2
    assert "holds no forward pass" in err


@pytest.mark.parametrize("name", sorted(path.name for path in GOLDEN.iterdir() if path.is_dir()))
def test_recordings_of_before_have_times_and_say_what_they_lack(profile, name):
    code, out, err = profile(GOLDEN / name)
    assert (code, err) == (0, "")
    assert "machine   not known" in out
    assert "memory    not recorded" in out


def test_a_session_with_nothing_in_it_is_an_error_with_what_to_try(profile, tmp_path):
    (tmp_path / "streams").mkdir()
    Manifest(name="empty", outcome=Outcome("ok", 0)).write(tmp_path)
    code, out, err = profile(tmp_path)
    assert (code, out) == (5, "")
    first, second = err.splitlines()
    assert "holds no load and no forward pass" in first
    assert second.startswith("try: ")
    code, out, _ = profile(tmp_path, "--json")
    assert (code, json.loads(out)["outcome"]) == (5, "incomplete")


def test_a_rank_that_is_not_there_names_those_that_are(profile, demo):
    code, _, err = profile(demo.json["session"], "--rank", 9)
    assert code == 5
    assert "0, 1, 2, 3" in err


@pytest.fixture
def planted(tmp_path):
    """A session that is still open, with names that no page and no terminal may take for its own."""
    recorder = Recorder(tmp_path)
    Manifest(name="</pre><script>alert(1)</script>", engine="toy", outcome=Outcome("running")).write(tmp_path)
    recorder.begin(WeightsMapped("M", 1), 0)
    recorder.end(recorder.begin(LoaderCalled("t", "</script><b>.weight"), 0))
    recorder.end(recorder.begin(KernelLaunched("lib::<i>", "custom", "m", shapes=("nonsense",)), 0))
    recorder.flush()
    yield tmp_path
    recorder.close()


def test_a_session_that_is_still_open_is_told_up_to_now(profile, planted):
    code, out, _ = profile(planted)
    assert code == 5
    assert "state     " in out
    assert "weight.load" in out


# --- the page and the trace


class Elements(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.addresses = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in {"src", "href"}]


def test_the_page_needs_nothing_else_and_takes_no_name_for_markup(profile, planted, tmp_path):
    assert profile(planted, "--flame", tmp_path / "page.html")[0] == 5
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    found = Elements()
    found.feed(text)
    assert found.addresses == []
    assert (found.tags.count("script"), found.tags.count("b"), found.tags.count("i")) == (1, 0, 0)
    assert "http:" not in text
    assert "https:" not in text
    assert "<!--BLOCKS-->" not in text


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no headless browser is installed")
def test_a_browser_draws_the_blocks(profile, demo, tmp_path):
    page = tmp_path / "page.html"
    profile(demo.json["session"], "--flame", page)
    words = [
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--window-size=1400,700",
        f"--user-data-dir={tmp_path}",
        "--dump-dom",
    ]
    done = subprocess.run([*words, page.as_uri()], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.count("<button") > 20
    assert ">forward</button>" in done.stdout


def test_the_trace_keeps_the_rules_of_its_format(profile, demo, tmp_path):
    path = tmp_path / "trace.json"
    assert profile(demo.json["session"], "--perfetto", path, "--by", "stage")[0] == 0
    events = json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)["traceEvents"]
    tracks, arrows = defaultdict(list), defaultdict(list)
    for event in events:
        assert event["ph"] in "MXiCsf"
        assert isinstance(event["pid"], int)
        if event["ph"] != "M":
            assert event["ts"] >= 0
        if event["ph"] == "X":
            assert event["dur"] >= 0
            tracks[event["pid"], event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
        elif event["ph"] == "C":
            assert all(isinstance(value, (int, float)) for value in event["args"].values())
        elif event["ph"] in "sf":
            arrows[event["id"]].append(event["ph"])
    assert set(map(tuple, arrows.values())) == {("s", "f")}
    assert len(arrows) == demo.json["counts"]["weight_loader_calls"]
    assert {event["name"] for event in events if event["ph"] == "C"} == {"host memory", "page faults"}
    names = {event["args"]["name"] for event in events if event["ph"] == "M"}
    assert {"rank 0", "rank 3", "stages of rank 0"} <= names
    for spans in tracks.values():
        require_nested(spans)


def require_nested(spans):
    """Slices of one track lie inside each other or side by side; a viewer drops those that cross."""
    open_ends = []
    for begin, end in sorted(spans, key=lambda span: (span[0], -span[1])):
        while open_ends and open_ends[-1] <= begin + 1e-6:
            open_ends.pop()
        assert not open_ends or end <= open_ends[-1] + 1e-3
        open_ends.append(end)


# --- the machine


def test_a_machine_is_measured_once_each_boot(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    times = []

    def measured():
        times.append(1)
        return machine.Machine(machine._id(), 2, 5e9, 7e9)

    monkeypatch.setattr(machine, "measured", measured)
    first = machine.measured_facts()
    assert machine.machine_of(first) == machine.machine_of(machine.measured_facts())
    assert len(times) == 1
    monkeypatch.setattr(machine, "_id", lambda: "after the next boot")
    machine.measured_facts()
    assert len(times) == 2


@pytest.mark.parametrize("entry", [None, 3, {"id": 4}, {"id": "x", "memcpy_bytes_per_s": "fast"}])
def test_an_entry_that_is_no_machine_is_left_out(entry):
    assert machine.machine_of({"machine": entry}) is None
