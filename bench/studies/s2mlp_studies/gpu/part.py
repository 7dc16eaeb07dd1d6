"""The part that measures a GPU. ``make gpu`` writes its page, whether there is a GPU or not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import s2mlp_studies
from s2mlp_bench.pytorch.place import no_gpu
from s2mlp_deploy.errors import RuntimeMissingError
from s2mlp_studies.gpu import table
from s2mlp_studies.gpu.device import DEVICES
from s2mlp_studies.gpu.goals import gpu_goals
from s2mlp_studies.gpu.measure import Plan, Report
from s2mlp_studies.gpu.measure import measure as measure_report
from s2mlp_studies.gpu.parity import Subject
from s2mlp_studies.models import MODELS
from s2mlp_studies.part import Finding, Part, Run

ROOT = Path(s2mlp_studies.__file__).parents[3]
EXAMPLES = ROOT / "examples"
SUBJECT = Subject(EXAMPLES / "fashion_mnist.pt", EXAMPLES / "test_images")


def findings(report: Report) -> Iterator[Finding]:
    """The checks, and the race of each model."""
    yield Finding("checks", "Tests, parity and peaks", table.checks(report), report.document)
    for model in dict.fromkeys(row.about[1] for row in report.of("race")):
        title = MODELS[model].title if model in MODELS else model
        yield Finding(model, title, table.race(report, model), {}, gpu_goals(report, model))


def plan(device: str, models: list[str], checkpoint: Callable[[str], Path]) -> Plan:
    """The report of ``models`` on ``device``, in the usual time."""
    return Plan(DEVICES[device], models, checkpoint, SUBJECT, ROOT)


def measure(run: Run) -> Iterator[Finding]:
    """The report on the GPU that is here."""
    models = {model.name: model for model in run.models_of("gpu")}
    *_, report = measure_report(plan("cuda", list(models), lambda name: run.checkpoint(models[name])), run.listener)
    yield from findings(report)


def _require() -> None:
    if reason := no_gpu():
        raise RuntimeMissingError(reason)


PART = Part(
    "gpu",
    "On a GPU",
    "tests, parity, and a race against PyTorch at batch 1, 32 and 128, by `make gpu`",
    measure,
    _require,
)
