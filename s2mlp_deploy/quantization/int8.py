"""From a float32 graph to an int8 one that keeps its accuracy, or a refusal.

Activations are calibrated on images of the kind the model will see; the result is judged on others.
Where quantizing every layer costs too much, the layers that cost most by themselves stay in float,
one after another, until the limit holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from s2mlp_deploy.data import images
from s2mlp_deploy.data.labelled_data import LabelledData
from s2mlp_deploy.errors import AccuracyError, DataError, UsageError
from s2mlp_deploy.families.reference import ReferenceModel
from s2mlp_deploy.families.registry import family_of
from s2mlp_deploy.formats.onnx import scratch_session
from s2mlp_deploy.gate import reference_logits
from s2mlp_deploy.gate.distance import compare
from s2mlp_deploy.gate.evaluation import EvaluationSet, logits_of
from s2mlp_deploy.gate.io_adapter import IoAdapter
from s2mlp_deploy.graph.layer import INPUT, Layer
from s2mlp_deploy.graph.lowered import Lowered
from s2mlp_deploy.passes.quantize import Quantize
from s2mlp_deploy.passes.recipe import RECIPES, Range
from s2mlp_deploy.passes.run_passes import run_passes
from s2mlp_deploy.quantization import calibration
from s2mlp_deploy.quantization.accuracy import assess, describe, limits
from s2mlp_deploy.quantization.settings import Int8
from s2mlp_deploy.runtime.session import BATCH, TracingSession
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.manifest import Quantization
from s2mlp_deploy.schema.report import Trial
from s2mlp_deploy.schema.spec import Spec
from s2mlp_deploy.system.progress import Progress
from s2mlp_deploy.system.wording import counted

MOST_FLOAT_LAYERS = 0.5
"""Share of layers that may stay in float; beyond it the bundle would be int8 in name only."""

RANKING_IMAGES = 16
HELD_OUT = 4
"""Without labelled images, every fourth calibration image judges instead of calibrating."""


@dataclass(frozen=True)
class QuantizationTask:
    """How a graph is quantized: the user's ``settings``, the ``target``, and the float ``model`` whose accuracy it must keep.

    ``adapter`` says how images become the artifact's inputs; ``data`` are labelled images that check the result.
    """

    settings: Int8
    target: str
    model: ReferenceModel
    adapter: IoAdapter
    data: LabelledData | None = None

    @property
    def batch(self) -> int | None:
        """The graph's fixed batch size; None for any."""
        return self.adapter.io.batch


@dataclass(frozen=True)
class Quantized:
    """The int8 graph, its entry in the manifest, and images to check it on elsewhere (None for synthetic calibration)."""

    lowered: Lowered
    record: Quantization
    evaluation: EvaluationSet | None
    trials: tuple[Trial, ...]


def to_int8(lowered: Lowered, task: QuantizationTask, progress: Progress) -> Quantized:
    """Quantize ``lowered`` as ``task`` says.

    Raises:
        UsageError: without calibration data, or where the options do not fit.
        DataError: where that data cannot be used.
        AccuracyError: where the accuracy limit cannot be kept.
        ParityError: where the graph is not the one that was to be made.
    """
    settings, recipe = task.settings, RECIPES[task.target]
    family = family_of(lowered.spec)
    layers = family.block_layers(lowered.spec) + (family.end_layers(lowered.spec) if settings.quantize_ends else ())
    with progress.step("reading the calibration images"):
        inputs, evaluation = _split(task, lowered.spec, progress)
    with scratch_session(lowered) as session, progress.step("calibrating activations"):
        observe = _observer(session, layers, task.batch)
        ranges = calibration.calibrate(observe, inputs, settings.calibration_method, batch=task.batch or BATCH)

    def build(float_layers: tuple[str, ...]) -> Lowered:
        kept = [layer for layer in layers if layer.name not in float_layers]
        # The pass compares the graphs: in the trials below, a faulty layer would be left in float as one that costs too much.
        graph = run_passes(lowered.model, Quantize(ranges, recipe, kept))
        return replace(lowered, model=graph, precision="int8")

    def quantized(float_layers: tuple[str, ...], trials: tuple[Trial, ...]) -> Quantized:
        record = Quantization(
            target=task.target,
            method=settings.calibration_method,
            calibration_images=len(inputs),
            float_layers=float_layers,
        )
        return Quantized(build(float_layers), record, evaluation, trials)

    if evaluation is None:
        return quantized((), ())
    _warn_of_few(evaluation, settings, progress)
    with progress.step("judging accuracy, and leaving layers in float if it takes that"):
        trials = tuple(
            _search(
                layers,
                lambda kept: _try(kept, build, evaluation, task),
                lambda: _costs(layers, lowered, ranges, task.target, inputs[:RANKING_IMAGES]),
            )
        )
    if not trials[-1].passed:
        raise AccuracyError(_refusal(trials, layers, settings))
    return quantized(trials[-1].float_layers, trials)


def _warn_of_few(evaluation: EvaluationSet, settings: Int8, progress: Progress) -> None:
    """Warn where a single image is more accuracy than may be lost."""
    if evaluation.labels is None or 100 / len(evaluation.labels) <= settings.max_accuracy_drop:
        return
    progress.warn(
        f"int8 is judged on {counted(len(evaluation.labels), 'image')}, so one image is {100 / len(evaluation.labels):.2g} points of accuracy and "
        f"--max-accuracy-drop {settings.max_accuracy_drop} allows none to be lost: give more labelled images"
    )


def _search(
    layers: tuple[Layer, ...], attempt: Callable[[tuple[str, ...]], Trial], costs: Callable[[], Mapping[str, float]]
) -> Iterator[Trial]:
    """Trials until one passes, or until too many layers would stay in float: the layers that cost most do so first."""
    trial = attempt(())
    yield trial
    if trial.passed:
        return
    by_layer = costs()
    ranking = sorted(by_layer, key=lambda name: -by_layer[name])
    for count in range(1, int(len(layers) * MOST_FLOAT_LAYERS) + 1):
        trial = attempt(tuple(ranking[:count]))
        yield trial
        if trial.passed:
            return


def _try(
    float_layers: tuple[str, ...],
    build: Callable[[tuple[str, ...]], Lowered],
    evaluation: EvaluationSet,
    task: QuantizationTask,
) -> Trial:
    with scratch_session(build(float_layers)) as session:
        logits = logits_of(session, evaluation.images, task.batch)
    return assess(float_layers, logits, evaluation, task.settings)


def _costs(
    layers: tuple[Layer, ...], lowered: Lowered, ranges: Mapping[str, Range], target: str, inputs: Array
) -> dict[str, float]:
    """How far the logits move when one layer alone is quantized: relative L2 over all ``inputs`` together."""
    with scratch_session(lowered) as session:
        expected = logits_of(session, inputs, lowered.axes.batch).reshape(1, -1)
    costs = {}
    for layer in layers:
        graph = run_passes(lowered.model, Quantize(ranges, RECIPES[target], [layer]))
        with scratch_session(replace(lowered, model=graph)) as session:
            costs[layer.name] = compare(
                logits_of(session, inputs, lowered.axes.batch).reshape(1, -1), expected
            ).relative_l2
    return costs


def _split(task: QuantizationTask, spec: Spec, progress: Progress) -> tuple[Array, EvaluationSet | None]:
    """Calibration images, and judging images that are not among them.

    With labelled images those judge; an image that is in both sets goes to one of them in turn.
    Without, every fourth calibration image evaluation.
    """
    settings, data, adapter = task.settings, task.data, task.adapter
    if settings.calibration is None:
        raise UsageError(
            "--precision int8 needs --calibration: images of the kind the model will see (a folder, or prepared inputs as "
            ".npy, .npz or .safetensors). Calibrating on noise would give wrong ranges"
        )
    if settings.synthetic:
        rng = np.random.default_rng(0)
        shape = (calibration.MINIMUM_IMAGES, spec.in_channels, *spec.image_size)
        return rng.standard_normal(shape, dtype=np.float32), None
    inputs = images.read_inputs(
        Path(settings.calibration), adapter.preprocessing, spec, settings.calibration_count, progress.warn
    )
    inputs = inputs[sorted({image.tobytes(): i for i, image in enumerate(inputs)}.values())]  # each image once
    files: tuple[Path, ...] = ()
    if data is None:
        held_out = np.arange(len(inputs)) % HELD_OUT == HELD_OUT - 1
        inputs, judging, labels = inputs[~held_out], inputs[held_out], None
    else:
        known = {image.tobytes(): i for i, image in enumerate(inputs)}
        both = [(i, known[x.tobytes()]) for i, x in enumerate(data.images) if x.tobytes() in known]
        keep = np.ones(len(data.images), bool)
        keep[[i for i, _ in both[::2]]] = False
        inputs = np.delete(inputs, [j for _, j in both[1::2]], axis=0)
        judging, labels = data.images[keep], data.labels[keep]
        files = tuple(path for path, kept in zip(data.files, keep, strict=False) if kept)
    judging = adapter.snapped(judging)
    if len(judging) < calibration.MINIMUM_IMAGES:
        raise DataError(
            f"calibration leaves {counted(len(judging), 'image')} to judge the int8 model on, and it takes at least "
            f"{calibration.MINIMUM_IMAGES} that took no part in calibration: give more, or other, images"
        )
    return inputs, EvaluationSet(judging, reference_logits.run(task.model, judging), labels, files)


def _observer(session: TracingSession, layers: tuple[Layer, ...], batch: int | None) -> calibration.Observe:
    names = tuple(dict.fromkeys(layer.activation for layer in layers if layer.activation != INPUT))
    wants_input = any(layer.activation == INPUT for layer in layers)

    def observe(inputs: Array) -> Mapping[str, Array]:
        if batch:  # copies of an image do not change a range
            inputs = inputs[np.arange(batch) % len(inputs)]
        return {**session.trace(inputs, names), **({INPUT: inputs} if wants_input else {})}

    return observe


def _refusal(trials: tuple[Trial, ...], layers: tuple[Layer, ...], settings: Int8) -> str:
    shown = [trials[i] for i in sorted({0, len(trials) // 4, len(trials) // 2, 3 * len(trials) // 4, len(trials) - 1})]
    return (
        f"int8 cannot keep {limits(trials[-1], settings)}, not even with {len(trials[-1].float_layers)} of {len(layers)} layers "
        f"left in float; nothing was published. Tried: {'; '.join(map(describe, shown))}. Try another --calibration-method, more calibration "
        "images, or --precision fp16"
    )
