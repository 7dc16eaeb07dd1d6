"""The measurements in their order: of each model its parts, then of what no model is needed for."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from s2mlp_bench import environment
from s2mlp_bench.baselines.registry import BASELINES
from s2mlp_bench.interleaved_timing import Schedule
from s2mlp_deploy.checkpoint.load import load_checkpoint
from s2mlp_deploy.families.s2mlp.spec import only_s2mlp
from s2mlp_deploy.system.progress import Listener
from s2mlp_studies.presets import report
from s2mlp_studies.presets.engines import measure_engines
from s2mlp_studies.presets.export_cost import measure_exports
from s2mlp_studies.presets.goals import engine_goals, export_goals, latency_goals
from s2mlp_studies.presets.latency import Runs, measure_latency
from s2mlp_studies.presets.models import Model, Part
from s2mlp_studies.random_weights import PRESETS, save_random
from s2mlp_studies.repair import measure as repairs
from s2mlp_studies.repair.goals import repair_goals
from s2mlp_studies.repair.nets import NETS
from s2mlp_studies.repair.table import repair_tables
from s2mlp_studies.scale import table
from s2mlp_studies.scale.measure import measure
from s2mlp_studies.scale.scaling import Plan, default_sizes
from s2mlp_studies.training import measure as training
from s2mlp_studies.training.goals import training_goals
from s2mlp_studies.training.table import training_table

SEED = 20210614
DEPTHS = (Fraction(1, 4), Fraction(1, 2), Fraction(1))


@dataclass(frozen=True)
class Settings:
    """Which ``parts`` to measure, and how often: ``rounds`` of latency; ``repeats`` of whole processes, where given.

    ``engines`` is whether engines can be built here.
    """

    parts: Collection[Part]
    rounds: int
    repeats: int | None
    baselines: Sequence[str]
    engines: bool


class Study:
    """Measures, and prints each table to ``out`` when it is there. ``measured`` holds everything."""

    def __init__(self, settings: Settings, listener: Listener, out: Console) -> None:
        self._settings, self._listener, self._out = settings, listener, out
        self._rng = random.Random(SEED)
        self.measured = report.Measured(report.environment())
        out.print(self.measured.environment)

    def measure_model(self, model: Model) -> None:
        """The parts of ``model`` that are wanted."""
        parts: dict[Part, Callable[[Model, Path, Path], None]] = {
            Part.export: self._export,
            Part.latency: self._latency,
            Part.scale: self._scale,
            Part.engines: self._engines,
        }
        wanted = [part for part in parts if part in self._settings.parts and part in model.parts]
        if not wanted:
            return
        with TemporaryDirectory() as directory:
            checkpoint = save_random(model.name, Path(directory) / f"{model.name}.pt")
            for part in wanted:
                parts[part](model, checkpoint, Path(directory))

    def measure_repairs(self) -> None:
        """Repairs of networks of all kinds, where they are wanted."""
        if Part.repair not in self._settings.parts:
            return
        s = self._settings
        plan = repairs.Plan(s.rounds, s.repeats or 1, s.engines, self._rng)
        for net in NETS:
            with TemporaryDirectory() as directory:
                found = repairs.measure_repair(net, Path(directory), plan, announce)
            self.measured.repairs.append(found)
            self.measured.goals += repair_goals(found)
        self._out.print(repair_tables(self.measured.repairs))

    def measure_training(self) -> None:
        """The shift to train with on maps of every size, where it is wanted."""
        if Part.training not in self._settings.parts:
            return
        shifts = training.candidates()
        for model, shape in training.SHAPES.items():
            announce(f"{model}: the shift, forward and backward")
            cost = training.measure(model, shape, shifts, self._settings.rounds, self._rng)
            self.measured.training.append(cost)
            self.measured.goals += training_goals(cost)
        self._out.print(training_table(self.measured.training))

    def _export(self, model: Model, checkpoint: Path, scratch: Path) -> None:
        repeats = self._settings.repeats or model.export_rounds
        cost = measure_exports(model.name, checkpoint, scratch, repeats=repeats, rng=self._rng, announce=announce)
        self.measured.exports.append(cost)
        self.measured.goals += export_goals(cost, model.promises)
        self._out.print(report.export_table(cost))

    def _latency(self, model: Model, checkpoint: Path, scratch: Path) -> None:
        spec = PRESETS[model.name]
        offered = [name for name in self._settings.baselines if BASELINES[name].refusal(spec) is None]
        runs = Runs(offered, Schedule(0, self._settings.rounds, SEED), self._listener)
        latency = measure_latency(model.name, checkpoint, scratch, runs, details=model.details)
        self.measured.latencies.append(latency)
        self.measured.goals += latency_goals(latency, model.promises)
        self._out.print(report.latency_tables(latency))

    def _scale(self, model: Model, checkpoint: Path, scratch: Path) -> None:
        source = load_checkpoint(checkpoint)
        sizes = default_sizes(only_s2mlp(source.spec, "scaling is measured beside an MLP-Mixer of its form"))
        plan = Plan(sizes, (1, 2, 4, 8), DEPTHS, threads=1, rounds=10, min_seconds=0, seed=SEED)
        scaling = measure(source, plan, self._listener)
        around = environment.describe()
        self.measured.scalings.append(report.Scaled(model.name, source.sha256, scaling, around))
        self._out.print(table.render(scaling, around))

    def _engines(self, model: Model, checkpoint: Path, scratch: Path) -> None:
        built = measure_engines(model.name, checkpoint, scratch, repeats=self._settings.repeats or 1, announce=announce)
        self.measured.engines.append(built)
        self.measured.goals += engine_goals(built)
        self._out.print(report.engine_table(built))


def announce(text: str) -> None:
    """A line of progress."""
    sys.stderr.write(f"{text} …\n")
