"""Find the fastest artifact of this machine that keeps the user's limits, and publish it. Read this first; it is the whole story.

    list candidates ─▶ make each, through the gate ─▶ check limits ─▶ race ─▶ other lowerings of the fast ones, race ─▶ decide ─▶ publish

Candidates are kept in a workspace, so that an interrupted tune goes on where it was; times are not, since those of two runs
cannot be compared.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from s2mlp_deploy.bundle.contents import Bundle
from s2mlp_deploy.bundle.staging import staged
from s2mlp_deploy.errors import CheckpointError, LimitError
from s2mlp_deploy.formats import registry
from s2mlp_deploy.pipeline.latency import cores
from s2mlp_deploy.pipeline.tune import candidates, energy, footprint, request_checks, rows
from s2mlp_deploy.pipeline.tune.candidates import LOWERINGS_DIFFER, Build, Candidate, Candidates, Excluded
from s2mlp_deploy.pipeline.tune.decision import Decision, Miss, decide
from s2mlp_deploy.pipeline.tune.energy import Joules
from s2mlp_deploy.pipeline.tune.heat import Heat
from s2mlp_deploy.pipeline.tune.report import Method, TuneReport
from s2mlp_deploy.pipeline.tune.request import TuneRequest
from s2mlp_deploy.pipeline.tune.search import Budget, Search, source_changed
from s2mlp_deploy.pipeline.tune.workspace import Made, Workspace
from s2mlp_deploy.system import atomic_write, machine
from s2mlp_deploy.system.progress import Listener
from s2mlp_deploy.system.timing import Clock
from s2mlp_deploy.system.version import __version__

FIRST_RACE_S, LAST_RACE_S, ENERGY_RACE_S = 8.0, 20.0, 60.0
"""How long the races take at most: among formats and precisions, the one that decides, and the one by energy."""


@dataclass(frozen=True)
class TuneResult:
    """The bundle of the candidate that was taken, and the report of all."""

    bundle: Bundle
    report: TuneReport


def tune(
    request: TuneRequest,
    listener: Listener | None = None,
    clock: Clock = time.perf_counter,
    measure_memory: Callable[[Made], int] = footprint.peak_bytes,
    find_counter: Callable[[], Joules] = energy.counter,
) -> TuneResult:
    """Publish the best of all candidates as a bundle, and write the report of all beside it.

    Raises:
        LimitError: where no candidate keeps the limits; ``done`` has the report.
        UsageError: where the request contradicts itself.
        CheckpointError: where the source cannot be read, or changes while it is worked on.
        Error: as :func:`s2mlp_deploy.pipeline.deploy.deploy` for faults that are not those of a candidate alone.
    """
    joules = find_counter() if request.objective == "energy" else None  # refused before any work is done
    source, precision = request_checks.checked(request)
    listed = candidates.of_bundle(request, precision) if precision else candidates.of_checkpoint(request)
    workspace = Workspace(request, source)
    search = Search(
        request, workspace, listener or Listener(), Budget(request.budget_s, clock, clock()), measure_memory
    )
    search.make(listed.builds)
    entered = tuple(search.entries(search.builds))
    first = search.race(entered, FIRST_RACE_S)
    last, excluded = _with_other_lowerings(search, entered, first, listed)
    if first and last is None and not first.standing.decided:
        last = search.race(_running(entered, first), LAST_RACE_S)
    decided = last or first
    if joules and decided:
        decided = search.race_by_energy(_measurable(search), ENERGY_RACE_S, joules)
    decision, late = _decide(search, decided)
    report = _report(search, decision, late, excluded, source)
    if decision is None:
        error = LimitError(_nothing(report))
        error.done = {"report": report.as_dict()}
        raise error
    if request_checks.source_hash(request) != source:
        raise CheckpointError(source_changed(request))
    bundle = _publish(search, decision, report)
    if not request.keep:
        workspace.remove()
    return TuneResult(bundle, report)


def _with_other_lowerings(
    search: Search, entered: tuple[Candidate, ...], first: Heat | None, listed: Candidates
) -> tuple[Heat | None, tuple[Excluded, ...]]:
    """Race the leaders of ``first`` again, with other lowerings of the same; None where there are none.

    An artifact that is slower by more than lowerings differ cannot win by another one.
    """
    if first is None or search.request.source.is_bundle or search.request.space.lowerings:
        return None, listed.excluded
    standing, near, far = first.standing, dict[Build, None](), dict[Build, None]()
    for one in entered:
        if one.name in standing.samples_ms:
            behind = standing.times_as_long(one.name, standing.fastest).median
            (near if behind <= LOWERINGS_DIFFER else far)[one.build] = None
    more = [
        other
        for build in near
        for other in candidates.other_lowerings(build, search.made[build].bundle.manifest.lowering)
    ]
    lost = [build.name for build in far if build not in near]
    reason = f"more than {LOWERINGS_DIFFER:g} times the time of the fastest, which is more than another lowering wins"
    excluded = (
        *listed.excluded,
        *([Excluded(f"other lowerings of {', '.join(lost)}", reason)] if lost and more else []),
    )
    if not more:
        return None, excluded
    search.make(more)
    threads = {one.threads for one in entered if one.name in standing.running}
    new = [one for one in search.entries(more) if one.threads in threads]
    return search.race([*_running(entered, first), *new], LAST_RACE_S), excluded


def _measurable(search: Search) -> list[Candidate]:
    """The candidates with times whose energy the counter of the processor shows: those that do not run on a GPU."""
    timed = (one for one in search.entries(search.builds) if search.standing_of(one.name))
    return [one for one in timed if not registry.find(one.build.format).on_gpu(search.made[one.build].bundle.artifact)]


def _running(entered: tuple[Candidate, ...], heat: Heat) -> list[Candidate]:
    """Those candidates that were not dropped in ``heat``."""
    return [one for one in entered if one.name in heat.standing.running]


def _decide(search: Search, heat: Heat | None) -> tuple[Decision | None, dict[str, Miss]]:
    """The decision, None where nothing keeps the limits; and those candidates that break the limit on latency."""
    if heat is None:
        return None, {}
    timed = [one for one in search.entries(search.builds) if search.standing_of(one.name)]
    if search.request.objective != "size":
        timed = [one for one in timed if one.name in heat.standing.samples_ms]
    late: dict[str, Miss] = {}
    limit = search.request.limits.latency_ms
    for one in timed:
        standing = search.standing_of(one.name)
        if limit is not None and standing and (found := standing.milliseconds(one.name).median) > limit:
            late[one.name] = Miss("--max-latency", found, limit)
    kept = [one for one in timed if one.name not in late]
    if not kept:
        return None, late
    sizes = [search.figures[one.build].size_bytes for one in kept]
    return decide(heat.standing, kept, sizes, search.request.objective), late


def _report(
    search: Search, decision: Decision | None, late: dict[str, Miss], excluded: tuple[Excluded, ...], source: str
) -> TuneReport:
    request, heats = search.request, search.heats
    laps = tuple(heat.standing.laps for heat in heats)
    limits = {**asdict(request.limits), "accuracy_drop": request.accuracy_drop}
    found = rows.rows_of(search, decision, late)
    return TuneReport(
        __version__,
        source,
        request.objective,
        limits,
        decision.taken if decision else None,
        rows.decision_in_words(search, decision) if decision else "",
        found,
        excluded,
        Method(request.batch, heats[-1].input, cores(), laps) if heats else None,
        machine.describe(),
        machine.installed(),
        round(search.budget.spent, 1),
    )


def _nothing(report: TuneReport) -> str:
    """The message where no candidate can be taken."""
    if nearest := rows.nearest_misses(report.rows):
        return f"no candidate keeps the limits, so nothing was published. The nearest: {nearest}"
    reasons = "; ".join(f"{row.name}: {row.reason}" for row in report.rows[:3]) or "; ".join(
        f"{one.name}: {one.reason}" for one in report.excluded[:3]
    )
    return f"no candidate can be made and run here, so nothing was published. {reasons}"


def _publish(search: Search, decision: Decision, report: TuneReport) -> Bundle:
    """Copy the candidate that was taken to its destination, and write the report beside it: before, so that where there is a bundle,
    nothing is missing."""
    request = search.request
    made = next(search.made[one.build] for one in search.entries(search.builds) if one.name == decision.taken)
    with staged(request.destination, replace=request.output.force) as staging:
        for name in made.bundle.manifest.files:
            (staging.directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(made.bundle.directory / name, staging.directory / name)
        atomic_write.write(request.report, report.to_json().encode(), option="-o")
        return staging.publish(made.bundle.manifest, made.report, key=request.output.sign)
