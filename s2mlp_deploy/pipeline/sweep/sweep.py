"""sweep(): every export of a plan, made on several processes. Read this first.

    plan.toml ─▶ items, each with a key ─▶ those without a bundle ─▶ workers ─▶ OUTPUT/KEY, results.jsonl

An item's key is the hash of all that decides its bundle, and its bundle lies under that key. A bundle is published whole or not at
all, so the directory is the whole state of a sweep: a second run of the same plan, after the first was killed or has failed, makes
what is not there. Accuracy on many images, and latency, are measured afterwards (measurements.py).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from s2mlp_deploy.bundle.read import NO_TEXT, is_bundle, is_text
from s2mlp_deploy.errors import Error, OutputError, UsageError
from s2mlp_deploy.pipeline.sweep import capacity, logged, task
from s2mlp_deploy.pipeline.sweep.evaluation import tally
from s2mlp_deploy.pipeline.sweep.item import Item, items_of
from s2mlp_deploy.pipeline.sweep.local_workers import LocalWorkers
from s2mlp_deploy.pipeline.sweep.measurements import Measurements
from s2mlp_deploy.pipeline.sweep.outcome import Failure, Outcome, Status, failed
from s2mlp_deploy.pipeline.sweep.plan import read_plan
from s2mlp_deploy.pipeline.sweep.timing import Timed, time_bundle
from s2mlp_deploy.pipeline.sweep.work import R, Workers
from s2mlp_deploy.system import atomic_write, workdir
from s2mlp_deploy.system.progress import Listener

RESULTS = "results.jsonl"


if TYPE_CHECKING:
    from s2mlp_deploy.pipeline.mlflow_log import MlflowLog


@dataclass(frozen=True)
class SweepRequest:
    """A plan's file, the directory for its bundles, and what makes them: the Ray cluster at ``ray``, or ``workers`` processes of this
    machine; None: as many as cores and memory allow. ``mlflow`` is the URI of a tracking store, to which the exports are logged. ``ship`` sends files through Ray to nodes that share no storage."""

    plan: Path
    output: Path | None = None
    workers: int | None = None
    ray: str | None = None
    mlflow: str | None = None
    ship: bool = False

    @property
    def destination(self) -> Path:
        """The directory of the bundles."""
        return self.output or Path(f"{self.plan.stem}-exports")


@dataclass(frozen=True)
class SweepResult:
    """The items by status, and the file with an outcome in each line, in the order of the plan."""

    counts: Mapping[Status, int]
    results: Path

    def outcomes(self) -> Iterator[Outcome]:
        """The outcomes, one at a time."""
        with self.results.open(encoding="utf-8") as lines:
            for line in lines:
                yield Outcome.of_json(json.loads(line))


def sweep(request: SweepRequest, listener: Listener | None = None) -> SweepResult:
    """Make the exports of a plan that are not there yet.

    Raises:
        PlanError, InputError: where the plan, or a file that it names, cannot be used. Nothing is made then.
        OutputError: where the directory cannot be written; bundles that are in it stay.
    """
    listener = listener or Listener()
    if request.workers is not None and (request.workers < 1 or request.ray is not None):
        raise UsageError(f"--workers {request.workers}: expected 1 or more processes, of this machine: Ray has its own")
    if request.ship and request.ray is None:
        raise UsageError("--ship is for --ray: processes of this machine see its files")
    with listener.step("reading the plan and hashing its checkpoints"):
        items = items_of(read_plan(request.plan), request.plan)
    output = _prepare(request.destination)
    log = _log(request)
    result = run(items, output, _workers(request, task.make, items, output), listener)
    measurements = Measurements(items, output)
    if measurements.wanted:
        measurements.evaluate(_workers(request, tally, items, output), listener)
        measurements.time(_timers(request, output), listener)
        result = _with_figures(result, measurements)
    if log:
        with listener.step("logging to MLflow"):
            log.add(logged.runs_of(result.outcomes()))
    return result


def _log(request: SweepRequest) -> MlflowLog | None:
    if request.mlflow is None:
        return None
    from s2mlp_deploy.pipeline import mlflow_log

    return mlflow_log.connect(request.mlflow, request.plan.stem)  # before any work is done


def _workers(request: SweepRequest, task: Callable[..., R], items: Sequence[Item], output: Path) -> Workers[R]:
    """What does ``task`` for each item, and writes into ``output``."""
    if request.ray is not None:
        from s2mlp_deploy.pipeline.sweep.ray_workers import RayWorkers

        return RayWorkers(request.ray, output, task, ships=request.ship)
    return LocalWorkers(partial(task, output=output), request.workers or capacity.workers(items))


def _timers(request: SweepRequest, output: Path) -> Workers[Timed]:
    """One process a machine, so that nothing is timed while something else is."""
    if request.ray is not None:
        from s2mlp_deploy.pipeline.sweep.ray_workers import BENCH_SLOT, RayWorkers

        return RayWorkers(request.ray, output, time_bundle, needs=BENCH_SLOT, ships=request.ship)
    return LocalWorkers(partial(time_bundle, output=output), 1)


def _with_figures(result: SweepResult, measurements: Measurements) -> SweepResult:
    """``result``, written again with the figures that were measured."""
    lines: list[bytes] = []
    counts = Counter[Status]()
    for outcome in map(measurements.add_to, result.outcomes()):
        counts[outcome.status] += 1
        lines.append(_json_line(outcome))
    atomic_write.write(result.results, b"".join(lines), option="-o")
    return SweepResult(counts, result.results)


def run(items: Sequence[Item], output: Path, workers: Workers[Outcome], listener: Listener) -> SweepResult:
    """Have ``workers`` make those of ``items`` that are not in ``output``, and write the results there.

    Raises:
        OutputError: where the results cannot be written.
    """
    lines: dict[str, bytes] = {}
    counts = Counter[Status]()
    checkpoints = {item.key: str(item.checkpoint) for item in items}

    def record(outcome: Outcome) -> None:
        counts[outcome.status] += 1
        if outcome.bundle:  # a node may have written it under another name of the same place
            outcome = replace(outcome, bundle=str(output / outcome.key), checkpoint=checkpoints[outcome.key])
        lines[outcome.key] = _json_line(outcome)

    missing = []
    for item in items:
        outcome = _known(item, output)
        record(outcome) if outcome else missing.append(item)
    try:
        for done, outcome in enumerate(workers.run(missing), 1):
            record(outcome)
            with listener.step(f"{done:,} of {len(missing):,}: {_line(outcome)}"):
                pass
    finally:
        workdir.sweep(output)  # the scratch directories of workers that were killed
    atomic_write.write(output / RESULTS, b"".join(lines[item.key] for item in items), option="-o")
    return SweepResult(counts, output / RESULTS)


def _json_line(outcome: Outcome) -> bytes:
    return json.dumps(outcome.as_dict(), ensure_ascii=False).encode() + b"\n"


def _known(item: Item, output: Path) -> Outcome | None:
    try:
        return task.known(item, output)
    except Error as error:
        return failed(item, Failure(type(error).__name__, str(error), error.exit_code))


def _line(outcome: Outcome) -> str:
    name = f"{Path(outcome.checkpoint).name} {outcome.format} {outcome.precision} {outcome.status}"
    return f"{name}: {outcome.error.message}" if outcome.error else name


def _prepare(output: Path) -> Path:
    """``output``, which is a directory that can be written; it is made where it is not there."""
    if not is_text(output):
        raise OutputError(f"cannot write to {output}: {NO_TEXT}. Choose another place with -o")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write to {output}: {error.strerror}. Choose another place with -o") from error
    if is_bundle(output):
        raise OutputError(
            f"{output} is a bundle, and a sweep puts its bundles into a directory of their own: choose another -o"
        )
    workdir.sweep(output)  # gives back what a killed run was about to replace
    atomic_write.check(output / RESULTS, replace=True, option="-o")
    return output
