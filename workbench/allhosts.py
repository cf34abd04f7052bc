"""Every host of a session for `attach` without screens: where each is, what its threads do, and letting all go."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sessions.ranks import Onlooker, Rank, RankPlace
from workbench.rankwords import call_words, warning, where


def hosts_told(folder: Path, *, wants_stacks: bool, releases: bool) -> dict[str, Any]:
    """`hosts` and `warning`: all hosts that answer, by rank. Raises ControlError when one refuses."""
    with ExitStack() as left:
        ranks = [Rank(one) for one in Onlooker.all_of(folder)]
        for one in ranks:
            left.callback(one.control.close)
        told = []
        for one in ranks:
            one.look()
            one.look_where()
            threads = (
                [{"name": name, "frames": frames} for name, frames in one.control.stacks()] if wants_stacks else []
            )
            told.append((one.place(None), {"threads": threads} if wants_stacks else {}))
        if releases:
            for one in ranks:
                one.do("release")
    told.sort(key=lambda pair: (pair[0].rank < 0, pair[0].rank, pair[0].pid))
    state = {"state": "running"} if releases else {}
    hosts = [{**place.told(), **threads, **state} for place, threads in told]
    return {"hosts": hosts, "warning": "" if releases else warning([place for place, _ in told])}


def host_lines(said: dict[str, Any]) -> list[str]:
    """The hosts of a session of several, and the warning; [] for one host."""
    places = [_place(host) for host in said.get("hosts", ())]
    if len(places) < 2:
        return []
    lines: list[str] = []
    for host, place in zip(said["hosts"], places, strict=True):
        lines += _lines(place, places)
        for thread in host.get("threads", ()):
            lines += [f"          thread {thread['name']}", *(f"            {frame}" for frame in thread["frames"])]
    return [*lines, *([f"note      {said['warning']}"] if said["warning"] else [])]


def _lines(place: RankPlace, places: Sequence[RankPlace]) -> list[str]:
    held = [one for one in places if one.state == "paused"]
    furthest = max(held, key=lambda one: one.number, default=None)
    why = f", {place.why}" if place.why else ""
    words = call_words(place) if place.state == "paused" else where(place, furthest)
    return [f"{place.name:9} process {place.pid}, {place.state}{why}", f"          {words}"]


def _place(host: dict[str, Any]) -> RankPlace:
    timeouts, collective = host["collective_timeouts_s"], host["collective"]
    pid, rank, number = int(host["pid"]), int(host["rank"]), int(host["number"])
    return RankPlace(pid, rank, host["state"], host["why"], number, host["call"], collective, timeouts)
