"""The part that measures exports."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from s2mlp_studies.export.goals import export_goals
from s2mlp_studies.export.measure import measure_exports
from s2mlp_studies.export.table import document, export_table
from s2mlp_studies.part import SEED, Finding, Part, Run, announce


def measure(run: Run) -> Iterator[Finding]:
    """Every model in turn."""
    rng = random.Random(SEED)
    for model in run.models_of("export"):
        announce(f"{model.name}: exports")
        with TemporaryDirectory() as directory:
            cost = measure_exports(
                model.name,
                run.checkpoint(model),
                Path(directory),
                repeats=run.repeats or model.export_rounds,
                rng=rng,
                announce=announce,
            )
        goals = export_goals(cost, model.promises)
        yield Finding(model.name, model.title, export_table(cost), document(cost), goals)


PART = Part(
    "export",
    "Export",
    "time and memory of `s2mlp-export`, beside `torch.onnx.export`",
    measure,
    why={
        "s2mlp-export --no-gate": "**The export itself, on wide.** Importing torch, onnxruntime and onnxsim takes more than half of the "
        "time of `s2mlp-export --no-gate`, and `torch.onnx.export` is quickest on few blocks.",
    },
)
