"""Quantize a float32 graph to int8 within an accuracy limit, or refuse. Read this first in quantization/.

images ─▶ split ─▶ calibrate ranges ─▶ quantizer ─▶ search for layers to leave in float ─▶ int8 graph
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from s2mlp_deploy.families.registry import family_of
from s2mlp_deploy.formats.onnx import scratch_session
from s2mlp_deploy.gate.evaluation import EvaluationSet
from s2mlp_deploy.graph.lowered import Lowered
from s2mlp_deploy.passes.quantize_whole import computed_values
from s2mlp_deploy.passes.recipe import RECIPES
from s2mlp_deploy.passes.run_passes import run_passes
from s2mlp_deploy.passes.spell_out import SpellOut
from s2mlp_deploy.quantization.accuracy import Evaluator
from s2mlp_deploy.quantization.accuracy_search import Ranker, search
from s2mlp_deploy.quantization.calibration import calibrate, observer
from s2mlp_deploy.quantization.evaluation_split import split_images
from s2mlp_deploy.quantization.quantizer import Quantizer
from s2mlp_deploy.quantization.rounding import check_range
from s2mlp_deploy.quantization.settings import Int8
from s2mlp_deploy.quantization.task import QuantizationTask
from s2mlp_deploy.runtime.session import BATCH
from s2mlp_deploy.schema.manifest import Quantization
from s2mlp_deploy.schema.precision import FP16
from s2mlp_deploy.schema.report import Trial
from s2mlp_deploy.system.progress import Progress
from s2mlp_deploy.system.wording import counted

RANKING_IMAGES = 16


@dataclass(frozen=True)
class Quantized:
    """The int8 graph, its entry in the manifest, and images to check it on elsewhere (None for synthetic calibration)."""

    lowered: Lowered
    record: Quantization
    evaluation: EvaluationSet | None
    trials: tuple[Trial, ...]


def to_int8(lowered: Lowered, task: QuantizationTask, progress: Progress) -> Quantized:
    """Quantize ``lowered`` by the settings of ``task``.

    Raises:
        UsageError: without calibration data, or where the options do not fit.
        DataError: where that data cannot be used.
        AccuracyError: where the accuracy limit cannot be kept.
        ParityError: where the pass changed more than it should, or values overflow the float16 between products.
    """
    settings, family, recipe = task.settings, family_of(lowered.spec), RECIPES[task.target]
    if settings.half:
        recipe = replace(recipe, between=np.float16)
    layers = family.block_layers(lowered.spec) + (family.end_layers(lowered.spec) if settings.quantize_ends else ())
    values, batch = recipe.values(layers), task.batch or BATCH
    if recipe.whole:
        lowered = replace(lowered, model=run_passes(lowered.model, SpellOut()))
        layers, values, batch = (), computed_values(lowered.model), task.batch or 1
    with progress.step("reading the calibration images"):
        split = split_images(task, lowered.spec, progress.warn)
    if settings.half:
        check_range(lowered, FP16.on_gpu, {"calibration": split.calibration[:RANKING_IMAGES]}, progress.warn)
    with scratch_session(lowered) as session, progress.step("calibrating activations"):
        observe = observer(session, values, task.batch)
        ranges = calibrate(observe, split.calibration, settings.calibration_method, batch=batch)
    quantizer = Quantizer(lowered, layers, ranges, recipe)
    trials: tuple[Trial, ...] = ()
    if split.evaluation:
        _warn_of_few(split.evaluation, settings, progress)
        evaluator = Evaluator(split.evaluation, settings, task.batch)
        with progress.step("judging accuracy, and leaving layers in float if it takes that"):
            trials = search(quantizer, evaluator, Ranker(quantizer, split.calibration[:RANKING_IMAGES]))
    float_layers = trials[-1].float_layers if trials else ()
    record = Quantization(
        target=task.target,
        method=settings.calibration_method,
        calibration_images=len(split.calibration),
        float_layers=float_layers,
    )
    return Quantized(quantizer.graph(float_layers), record, split.evaluation, trials)


def _warn_of_few(evaluation: EvaluationSet, settings: Int8, progress: Progress) -> None:
    """Warn where a single image weighs more than the accuracy that may be lost."""
    if evaluation.labels is None or 100 / len(evaluation.labels) <= settings.max_accuracy_drop:
        return
    progress.warn(
        f"int8 is evaluated on {counted(len(evaluation.labels), 'image')}, so one image is {100 / len(evaluation.labels):.2g} points of accuracy and "
        f"--max-accuracy-drop {settings.max_accuracy_drop} allows none to be lost: give more labelled images"
    )
