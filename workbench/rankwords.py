"""Where several ranks are, in words: for the line of the screens and for `attach`."""

from __future__ import annotations

from collections.abc import Sequence

from sessions.ranks import RankPlace

USUAL = "by default 30 min, NCCL's 10 min"


def where(place: RankPlace, shown: RankPlace | None) -> str:
    """What is to be said of a rank beside the one that is shown; "" when it is held at the same loader call."""
    if place.state == "ended":
        return "ended"
    if place.state == "running":
        if place.collective:
            return f"waits in {place.collective}"
        return "on its way" if place.number else "no loader call yet"
    if shown is None or shown.state != "paused" or place.pid == shown.pid:
        return ""
    if place.call == shown.call:
        return ""
    if place.call is None:
        return f"after call {place.number}" if place.number else "at its start"
    return f"at call {place.number}" if place.number != shown.number else f"at another call {place.number}"


def call_words(place: RankPlace) -> str:
    """The loader call in which a rank is held: parameter, shard id or expert where there are, its number."""
    call = place.call
    if call is None:
        return f"after its loader call {place.number}" if place.number else "before its first loader call"
    part = f" shard_id {call['shard_id']}" if call["shard_id"] else ""
    expert = f" expert {call['expert_id']}" if call["expert_id"] >= 0 else ""
    again = f", time {call['occurrence']}" if call["occurrence"] > 1 else ""
    return f"{call['parameter']}{part}{expert}, loader call {place.number}{again}"


def warning(places: Sequence[RankPlace]) -> str:
    """After how long a collective gives up in which ranks wait for those that are held; "" when none can be waiting."""
    alive = [place for place in places if place.state != "ended"]
    if len(alive) < 2 or all(place.state != "paused" for place in alive):
        return ""
    found: dict[str, float] = {}
    for place in alive:
        for backend, seconds in place.timeouts.items():
            found[backend] = min(seconds, found.get(backend, seconds))
    if not found:
        return f"collectives that wait for a held rank time out: {USUAL}"
    told = ", ".join(f"{_duration(seconds)} ({backend})" for backend, seconds in sorted(found.items()))
    return f"collectives that wait for a held rank time out after {told}"


def _duration(seconds: float) -> str:
    return f"{seconds / 60:g} min" if seconds >= 60 else f"{seconds:g} s"
