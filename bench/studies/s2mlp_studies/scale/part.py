"""The part that measures how cost grows."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path

from s2mlp_bench import environment
from s2mlp_bench.results.output import write
from s2mlp_deploy.checkpoint.load import load_checkpoint
from s2mlp_deploy.families.s2mlp.spec import only_s2mlp
from s2mlp_studies.part import SEED, Finding, Part, Run
from s2mlp_studies.scale import plot, table
from s2mlp_studies.scale.document import document
from s2mlp_studies.scale.measure import measure as measure_scale
from s2mlp_studies.scale.scaling import Plan, Scaling, default_sizes

DEPTHS = (Fraction(1, 4), Fraction(1, 2), Fraction(1))


def measure(run: Run) -> Iterator[Finding]:
    """Every model in turn."""
    for model in run.models_of("scale"):
        source = load_checkpoint(run.checkpoint(model))
        sizes = default_sizes(only_s2mlp(source.spec, "scaling is measured beside an MLP-Mixer of its form"))
        plan = Plan(sizes, (1, 2, 4, 8), DEPTHS, threads=1, rounds=min(run.rounds, 10), min_seconds=0, seed=SEED)
        scaling = measure_scale(source, plan, run.listener)
        around = environment.describe()
        yield Finding(
            model.name,
            model.title,
            table.render(scaling, around),
            document(scaling, source.sha256, around),
            draw=partial(_draw, scaling),
        )


def _draw(scaling: Scaling, path: Path) -> None:
    write(path, plot.picture(scaling, path.suffix))


PART = Part(
    "scale",
    "How cost grows",
    "latency and memory over image size, batch and depth, beside an MLP-Mixer of the same form",
    measure,
)
