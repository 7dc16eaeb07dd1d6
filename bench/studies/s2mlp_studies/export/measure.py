"""The cost of an export as a whole process: time and peak memory, with the gate and without."""

from __future__ import annotations

import random
import shutil
import sys
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from s2mlp_bench.baselines.registry import naive_command
from s2mlp_bench.weights_from_onnx import Model
from s2mlp_deploy.checkpoint.load import load_checkpoint
from s2mlp_deploy.system.process_cost import ProcessCost, measure
from s2mlp_deploy.system.timing import Estimate, estimate, interleave, ratio

NO_GATE, GATE, NAIVE, IMPORTS = "s2mlp-export --no-gate", "s2mlp-export", "torch.onnx.export", "imports only"
"""The candidates. ``imports only`` is what an export holds before it has read a byte of the checkpoint."""


@dataclass(frozen=True)
class ExportCost:
    """Raw samples of one model: by candidate, one :class:`ProcessCost` a round."""

    model: str
    checkpoint_bytes: int
    samples: Mapping[str, tuple[ProcessCost, ...]]

    def wall_s(self, candidate: str) -> Estimate:
        """Seconds from start to exit."""
        return estimate([cost.wall_s for cost in self.samples[candidate]])

    def cpu_s(self, candidate: str) -> Estimate:
        """Seconds of processor time, over all cores."""
        return estimate([cost.cpu_s for cost in self.samples[candidate]])

    def peak_rss_bytes(self, candidate: str) -> Estimate:
        """Largest resident set."""
        return estimate([cost.peak_rss_bytes for cost in self.samples[candidate]])

    def speedup(self, candidate: str) -> Estimate:
        """How many times faster than ``torch.onnx.export`` it is."""
        return ratio(*([cost.wall_s for cost in self.samples[name]] for name in (NAIVE, candidate)))

    def memory_ratio(self, candidate: str) -> Estimate:
        """Peak memory beyond the imports', in sizes of the checkpoint."""
        pairs = zip(self.samples[candidate], self.samples[IMPORTS], strict=True)
        return estimate([(a.peak_rss_bytes - b.peak_rss_bytes) / self.checkpoint_bytes for a, b in pairs])


def measure_exports(
    preset: str, checkpoint: Path, scratch: Path, *, repeats: int, rng: random.Random, announce: Callable[[str], None]
) -> ExportCost:
    """Export ``checkpoint``, a model of ``preset``, in every way ``repeats`` times, interleaved."""
    script = shutil.which("s2mlp-export", path=sysconfig.get_path("scripts"))
    if script is None:
        raise RuntimeError("the command s2mlp-export is not installed beside this Python: pip install -e .")
    bundle, naive = scratch / "bundle", scratch / "naive" / "model.onnx"
    source = load_checkpoint(checkpoint)
    weights = {name: tensor.numpy() for name, tensor in source.weights.items()}
    state = Model(source.spec, weights).save(scratch / "state")
    export = [script, str(checkpoint), "--format", "onnx", "-o", str(bundle)]
    candidates = {
        NO_GATE: _process(NO_GATE, [*export, "--no-gate"], bundle, announce),
        GATE: _process(GATE, export, bundle, announce),
        NAIVE: _process(NAIVE, naive_command(state, 1, source.spec.image_size, naive), naive.parent, announce),
        IMPORTS: _process(IMPORTS, [sys.executable, "-c", "import torch, onnxruntime, onnxsim"], None, announce),
    }
    candidates[IMPORTS]()  # so that no candidate pays for reading the packages from the disk
    samples = interleave(candidates, rounds=repeats, rng=rng, announce=announce)
    return ExportCost(preset, checkpoint.stat().st_size, samples)


def _process(
    name: str, command: list[str], output: Path | None, announce: Callable[[str], None]
) -> Callable[[], ProcessCost]:
    """A candidate that runs ``command``, which finds no directory ``output`` from the last time."""

    def candidate() -> ProcessCost:
        announce(name)
        if output and output.exists():
            shutil.rmtree(output)
        return measure(command)

    return candidate
