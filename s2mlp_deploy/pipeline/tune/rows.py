"""Put what became of each candidate into rows and words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from s2mlp_deploy.pipeline.tune.candidates import Build, Candidate
from s2mlp_deploy.pipeline.tune.decision import Decision, Miss
from s2mlp_deploy.pipeline.tune.report import Outcome, Row, front
from s2mlp_deploy.pipeline.tune.search import Search
from s2mlp_deploy.system.timing import Estimate

NEAREST = 3
"""Misses that a message names."""


def rows_of(search: Search, decision: Decision | None, late: dict[str, Miss]) -> tuple[Row, ...]:
    """A row for each candidate, the most promising first; ``late`` are those that break the limit on latency, by name."""
    rows = [row for build in search.builds for row in _rows_of(search, build, decision, late)]
    on_front = front(rows)
    return tuple(replace(row, on_front=row.name in on_front) for row in rows)


def _rows_of(search: Search, build: Build, decision: Decision | None, late: dict[str, Miss]) -> Iterator[Row]:
    name, precision = build.name, build.precision.row.name
    plain = Row(name, name, build.format, precision, build.flags, None, "not tried", "the budget was over")
    if build in search.refused:
        refused = search.refused[build]
        yield replace(plain, outcome="refused", reason=refused.reason)
        return
    if build not in search.made:
        yield plain
        return
    plain = replace(plain, lowering=search.made[build].bundle.manifest.lowering, figures=search.figures[build])
    if broken := search.misses(build):
        yield replace(
            plain, outcome="beyond a limit", reason="; ".join(map(miss_in_words, broken)), misses=tuple(broken)
        )
        return
    entered = list(search.entries([build]))
    for candidate in [one for one in entered if search.took_part(one.name)] or entered[:1]:
        yield _timed(search, candidate, replace(plain, name=candidate.name, threads=candidate.threads), decision, late)


def _timed(search: Search, candidate: Candidate, row: Row, decision: Decision | None, late: dict[str, Miss]) -> Row:
    standing = search.standing_of(row.name)
    if standing is None:
        reasons = [one.refused[row.name] for one in search.heats if row.name in one.refused]
        return replace(row, outcome="refused", reason=reasons[-1]) if reasons else row
    row = replace(
        row,
        milliseconds=standing.milliseconds(row.name),
        times_as_long=standing.times_as_long(row.name, standing.fastest),
        rounds=len(standing.samples_ms[row.name]),
    )
    measured = search.energy.standing if search.energy else None
    if measured and row.name in measured.samples_ms:
        row = replace(row, millijoules=measured.milliseconds(row.name))
    if row.name in late:
        miss = late[row.name]
        return replace(row, outcome="beyond a limit", reason=miss_in_words(miss), misses=(miss,))
    if decision is None:
        return row
    return replace(row, outcome=_outcome(row.name, decision, search), reason=_reason(row, decision, search))


def _outcome(name: str, decision: Decision, search: Search) -> Outcome:
    if name == decision.taken:
        return "taken"
    if name in decision.level:
        return "level"
    return _WORSE.get(search.request.objective, "slower")


_WORSE: dict[str, Outcome] = {"size": "larger", "energy": "more energy"}
"""The outcome of candidates that are worse by an objective; of others they are slower."""


def _reason(row: Row, decision: Decision, search: Search) -> str:
    if row.name == decision.taken:
        return ""
    if row.name in decision.level:
        return f"no difference shown, and {decision.taken} is simpler"
    if search.request.objective == "size":
        return f"larger than {decision.taken}"
    if search.energy:
        by_energy = search.energy.standing
        if row.name not in by_energy.samples_ms:
            return "the counter does not show its energy: it runs on a GPU"
        return f"{times(by_energy.times_as_long(row.name, by_energy.fastest))} times the energy of {by_energy.fastest}"
    standing = search.standing_of(row.name)
    assert standing
    return f"{times(standing.times_as_long(row.name, standing.fastest))} times the time of {standing.fastest}"


def times(estimate: Estimate) -> str:
    """A ratio with its interval."""
    return f"{estimate.median:.2f} ({estimate.low:.2f} … {estimate.high:.2f})"


def decision_in_words(search: Search, decision: Decision) -> str:
    """Why the candidate was taken, in a sentence or two."""
    taken, best = decision.taken, decision.best
    if search.request.objective == "size":
        return (
            f"{taken} was taken: the smallest"
            if taken == best
            else (f"{taken} was taken: {best} is less than 2% smaller, and {taken} is simpler")
        )
    if search.energy:
        if taken == best:
            return f"{taken} was taken: it takes the least energy"
        less = search.energy.standing.times_as_long(taken, best)
        return f"{taken} was taken: {best} takes less by {times(less)} times, which shows no difference of 2%, and {taken} is simpler"
    standing = search.heats[-1].standing
    if taken != best:
        faster = standing.times_as_long(taken, best)
        return f"{taken} was taken: {best} measured {times(faster)} times as fast, which shows no difference of 2%, and {taken} is simpler"
    first = simplest(search)
    if first is None or first.name == taken:
        return f"{taken} was taken: it is the simplest candidate, and none is shown to be faster"
    return f"{taken} was taken: {_times_as_fast(search, taken, first.name):.2f} times as fast as {first.name}, the simplest"


def _times_as_fast(search: Search, name: str, other: str) -> float:
    """How many times as fast as ``other`` the candidate is: in a race of both, else by way of the fastest of the other's race."""
    for heat in reversed(search.heats):
        if name in heat.standing.samples_ms and other in heat.standing.samples_ms:
            return heat.standing.times_as_long(other, name).median
    between = search.standing_of(other)
    assert between
    known = between.fastest
    return between.times_as_long(other, known).median * search.heats[-1].standing.times_as_long(known, name).median


def simplest(search: Search) -> Candidate | None:
    """The simplest candidate that was timed."""
    entered = [one for one in search.entries(search.builds) if search.standing_of(one.name)]
    return min(entered, key=lambda one: one.complexity, default=None)


def nearest_misses(rows: Sequence[Row]) -> str:
    """Those candidates that come nearest to keeping all limits, in words."""
    missed = [row for row in rows if row.misses]
    missed.sort(key=lambda row: max(miss.excess for miss in row.misses))
    shown = [f"{row.name} ({'; '.join(map(miss_in_words, row.misses))})" for row in missed[:NEAREST]]
    return ", ".join(shown)


_UNITS = {"--max-accuracy-drop": (1.0, "points"), "--max-latency": (1.0, "ms")}


def miss_in_words(miss: Miss) -> str:
    """The limit, and what was found."""
    divisor, unit = _UNITS.get(miss.option, (1e6, "MB"))
    return f"{miss.option}: {miss.found / divisor:.3g} {unit}, allowed {miss.allowed / divisor:.3g}"
