"""The part that measures runtimes for phones and small boards."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import s2mlp_studies
from s2mlp_bench.baselines import registry
from s2mlp_bench.interleaved_timing import Schedule
from s2mlp_bench.report import pictures
from s2mlp_deploy.quantization.settings import SYNTHETIC
from s2mlp_studies.devices.artifacts import Subject
from s2mlp_studies.devices.goals import SMALL, device_goals
from s2mlp_studies.devices.measure import BASELINES, Schedules, measure_devices
from s2mlp_studies.devices.table import device_tables, document
from s2mlp_studies.part import SEED, Finding, Part, Run

EXAMPLES = Path(s2mlp_studies.__file__).parents[3] / "examples"

SECONDS = 10.0
"""Of timing, for a network that takes less than a millisecond."""


def measure(run: Run) -> Iterator[Finding]:
    """The bundled checkpoint, and every model in turn."""
    baselines = tuple(name for name in BASELINES if registry.BASELINES[name].missing() is None)
    images = EXAMPLES / "test_images"
    subjects = [Subject(SMALL, "The bundled checkpoint", EXAMPLES / f"{SMALL}.pt", images)]
    subjects += [Subject(m.name, m.title, run.checkpoint(m), SYNTHETIC) for m in run.models_of("devices")]
    for subject in subjects:
        schedule = Schedule(SECONDS if subject.name == SMALL else 0, run.rounds, SEED)
        how = Schedules(schedule, run.repeats or 3, baselines, run.listener)
        with TemporaryDirectory() as directory:
            found = measure_devices(subject, Path(directory), how)
        draw = partial(pictures.draw, found.benchmark.result, replace=True)
        yield Finding(subject.name, subject.title, device_tables(found), document(found), device_goals(found), draw)


PART = Part(
    "devices",
    "Runtimes for phones and small boards",
    "LiteRT and ExecuTorch beside ONNX Runtime and OpenVINO, one thread of this processor",
    measure,
    why={
        "memory to write for LiteRT": "**Memory to write for LiteRT.** The weights are there twice, where they lie in the ONNX file, which is mapped, "
        "and in the file that is written; the graph comes on top.",
    },
)
