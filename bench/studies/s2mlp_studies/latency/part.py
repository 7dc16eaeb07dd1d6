"""The part that measures latency on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from s2mlp_bench.baselines.registry import BASELINES
from s2mlp_bench.candidate import Point
from s2mlp_bench.interleaved_timing import Schedule
from s2mlp_bench.report import pictures
from s2mlp_deploy.system.progress import Listener
from s2mlp_studies.latency.goals import latency_goals
from s2mlp_studies.latency.measure import Runs, measure_latency
from s2mlp_studies.latency.table import document, latency_tables
from s2mlp_studies.part import SEED, Finding, Part, Run
from s2mlp_studies.random_weights import PRESETS


def measure(run: Run) -> Iterator[Finding]:
    """Every model in turn, beside all baselines that it offers and that can run here."""
    baselines = available_baselines(run.listener)
    for model in run.models_of("latency"):
        offered = [name for name in baselines if BASELINES[name].refusal(PRESETS[model.name]) is None]
        runs = Runs(offered, Schedule(0, run.rounds, SEED), run.listener)
        with TemporaryDirectory() as directory:
            found = measure_latency(model.name, run.checkpoint(model), Path(directory), runs, details=model.details)
        goals = latency_goals(found, model.promises)
        draw = partial(pictures.draw, found.everything.result, replace=True)
        yield Finding(model.name, model.title, latency_tables(found), document(found), goals, draw)


def available_baselines(listener: Listener) -> list[str]:
    """The baselines that run on a CPU and whose packages are here; ``listener`` gets a warning about each whose package is missing."""
    found = []
    for name, baseline in BASELINES.items():
        if baseline.elsewhere([Point()]):
            continue
        if reason := baseline.missing():
            listener.warn(f"the baseline {name} is left out: {reason}")
        else:
            found.append(name)
    return found


PART = Part(
    "latency",
    "Latency on a CPU",
    "one image at a time in ONNX Runtime, beside PyTorch, OpenVINO and other ways to write the network",
    measure,
    why={
        "latency of naive-onnx": "**naive-onnx / fp32.** The ratio to *no-shift* is the most that any lowering can reach; on wide "
        "that is less than the goal.",
        "latency of openvino-static": "**OpenVINO's static int8.** It quantizes the patch embedding and the classifier, "
        "too, but in ONNX Runtime (`--quantize-ends`) that brings nothing. Where the rest goes was not taken apart.",
        "its products alone": "**int8 beyond its products.** With VNNI wide keeps the goal and deep is at it (1.28 in one run, 1.33 in another: its "
        "layers are smaller, so GELU, quantizing and LayerNorm, which stay in float32, weigh more). With AMX the products take a third of that time, "
        "and the rest weighs more on both.",
        "gain of a 2nd thread": "**A second thread for int8.** What is between the products takes a larger share in "
        "int8, and gains less.",
    },
)
