"""Measuring tunes: two in a row, and a race of all their candidates in which none is dropped."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.formats import registry
from s2mlp_deploy.pipeline.latency import images_for
from s2mlp_deploy.pipeline.request import EvidenceOptions, OutputOptions, Source
from s2mlp_deploy.pipeline.tune.request import Space, TuneRequest
from s2mlp_deploy.pipeline.tune.tune import tune
from s2mlp_deploy.quantization.settings import Int8
from s2mlp_deploy.system.progress import Listener
from s2mlp_deploy.system.timing import Estimate, estimate, interleave, ratio, timed_ms

EXAMPLES = Path(__file__).parents[4] / "examples"

SPACE = Space(("onnx", "ort", "openvino"), ("fp32", "int8"), ("auto",), (1,))
"""Six candidates, which any machine can run that this project is developed on."""


@dataclass(frozen=True)
class Tuned:
    """Two tunes, and milliseconds of all candidates by name, the i-th of all from one round."""

    model: str
    chosen: tuple[str, str]
    seconds: float
    samples_ms: Mapping[str, tuple[float, ...]]

    @property
    def best(self) -> str:
        """The fastest of all candidates."""
        return min(self.samples_ms, key=lambda name: estimate(self.samples_ms[name]).median)

    @property
    def choice_ratio(self) -> Estimate:
        """Time of the first tune's choice in units of the best's."""
        return ratio(self.samples_ms[self.chosen[0]], self.samples_ms[self.best])


def request_for(checkpoint: Path, images: Path, place: Path) -> TuneRequest:
    """A tune of ``checkpoint`` into ``place`` that keeps its candidates; ``images`` are labelled, and calibrate int8."""
    int8 = Int8(images, quantize_ends=True)
    output = OutputOptions(place / "best", force=True)
    return TuneRequest(Source(checkpoint), EvidenceOptions(data=images), int8, space=SPACE, output=output, keep=True)


def measure_tune(request: TuneRequest, rounds: int, listener: Listener, announce: Callable[[str], None]) -> Tuned:
    """Tune twice, and race all candidates that the tunes have kept."""
    announce("the first tune")
    start = time.perf_counter()
    first = tune(request, listener).report
    seconds = time.perf_counter() - start
    announce("the second tune")
    second = tune(replace(request, budget_s=2 * request.budget_s), listener).report
    announce("the race of all candidates")
    calls: dict[str, Callable[[], object]] = {}
    for row in first.timed:
        bundle = read_bundle(next(request.work.glob(f"{row.build.replace(' ', '-')}-????????????")))
        images, _ = images_for([bundle], 1)
        session = registry.find(row.format).open_with_threads(bundle.artifact, row.threads)
        calls[row.name] = partial(session.run, images)
    candidates = {name: timed_ms(call, time.perf_counter) for name, call in calls.items()}
    samples = interleave(candidates, rounds=rounds, rng=random.Random(0), warmup=5)
    return Tuned(request.source.path.stem, (first.taken or "", second.taken or ""), seconds, samples)
