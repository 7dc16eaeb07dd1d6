"""deploy(): from a checkpoint to verified bundles. Read this first; it is the whole story.

    checkpoint ─▶ which shift? ─▶ oracle ─▶ golden tensors
               └▶ graph ─▶ folds ─▶ onnxsim ─▶ artifact ─▶ gate ─▶ bundle

Nothing is published unless the gate passes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from math import isfinite
from pathlib import Path
from typing import Any, Literal

import numpy as np

from s2mlp_deploy import (
    __version__,
    artifact,
    checkpoint,
    evidence,
    exporter,
    golden,
    images,
    layouts,
    machine,
    memory,
    parity,
    reference,
    rewrites,
)
from s2mlp_deploy import lowering as lowerings
from s2mlp_deploy import oracle as oracles
from s2mlp_deploy.artifact import Bundle
from s2mlp_deploy.checkpoint import Checkpoint
from s2mlp_deploy.digest import sha256
from s2mlp_deploy.errors import DataError, ParityError, UsageError
from s2mlp_deploy.evidence import Evidence
from s2mlp_deploy.exporter import Exporter, Lowered, Session
from s2mlp_deploy.golden import Golden
from s2mlp_deploy.graph import INPUT, OPSET, OUTPUT, Axes, emit
from s2mlp_deploy.lowering import Lowering
from s2mlp_deploy.manifest import Manifest, Preprocessing, Source, SpecEntry, TensorEntry, ToleranceEntry
from s2mlp_deploy.oracle import Judgement
from s2mlp_deploy.parity import Array, Tolerance, Verdict
from s2mlp_deploy.simplify import simplify
from s2mlp_deploy.spec import DIRECTIONS, Offset, Semantics, Shift, Size

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GOLDEN_IMAGES = 8
"""Real images that travel in the bundle, where labelled images are given."""


@dataclass(frozen=True)
class Request:
    """What to export and how; the fields are the options of ``s2mlp-export``."""

    checkpoint: Path
    format: str = "onnx"
    precision: str = "fp32"
    output: Path | None = None
    force: bool = False
    layout: str | None = None
    weights: str | None = None
    lowering: str = "auto"
    semantics: Literal["paper", "inplace", "auto"] = "paper"
    offsets: tuple[Offset, ...] = DIRECTIONS["4"]
    image_size: Size | None = None
    dynamic_size: bool = False
    batch: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    reference: Path | None = None
    data: Path | None = None
    data_count: int = 1000
    gate: bool = True


@dataclass(frozen=True)
class Export:
    """A published bundle and what the gate measured (None where it was switched off)."""

    bundle: Bundle
    verdict: Verdict | None
    report: dict[str, Any]


@dataclass(frozen=True)
class Data:
    """Labelled images, prepared: (count, channels, height, width) float32 and (count,) int64."""

    images: Array
    labels: Array


class Listener:
    """Hears how far the work is; this one ignores it."""

    def step(self, what: str) -> AbstractContextManager[object]:
        """Around a part of the work that may take a while."""
        return nullcontext()

    def warn(self, text: str) -> None:
        """Something the user should know, that does not stop the work."""


def deploy(request: Request, listener: Listener | None = None) -> Export:
    """Export ``request.checkpoint`` as one verified bundle.

    Raises:
        ParityError: where the artifact's numbers are off; nothing is published then.
        Error: for everything else that errors.py lists.
    """
    listener = listener or Listener()
    clock = _Stopwatch(listener)
    destination = request.output or Path(f"{request.checkpoint.stem}-{request.format}-{request.precision}")
    artifact.check_destination(destination, replace=request.force)
    target = _exporter(request)

    with clock.step("reading the checkpoint"):
        source = _load(request)
        source = _check_labels(source, listener)
        preprocessing = preprocessing_for(source, request.mean, request.std)
        if preprocessing.assumed:
            listener.warn(
                f"the checkpoint does not record how its images were normalized: mean {preprocessing.mean} and std "
                f"{preprocessing.std} are assumed and written into the bundle; pass --mean and --std if they were others"
            )
        data = _read_data(request, source, preprocessing)
    source, found = _settle_semantics(source, request, data, listener, clock)
    spec = source.spec
    lowering = lowerings.choose(request.lowering, spec, dynamic_size=request.dynamic_size)
    axes = Axes(request.batch, None if request.dynamic_size else spec.image_size)

    model = reference.build(spec, source.weights)
    judgement = None
    if request.gate:
        with clock.step("computing golden logits in float64"):
            judgement = oracles.consult(model, golden.make_inputs(spec, axes, _golden_images(data)))
    with artifact.staging(destination, replace=request.force) as staging:
        with clock.step(f"writing the {request.format} artifact"):
            # The graph is not kept: its folded weights would stand beside the runtime's own copy.
            made = target.export(lower(source, preprocessing, lowering, axes), staging.directory)
            memory.release()
        verdict, tolerance = None, None
        report: dict[str, Any] = {"evidence": [vars(e) for e in found]}
        if judgement:
            with clock.step("checking parity with the oracle"):
                tolerance = tolerance_for(request.precision, judgement)
                session = target.open(made)
                verdict = gate(session, judgement.golden, tolerance, request.batch)
                report |= _figures(verdict, judgement)
                if not verdict.passed:
                    raise ParityError(_failure(verdict))
                if data:
                    report["images"] = _judge_images(session, model, data, tolerance, request.batch)
                golden.save(judgement.golden, staging.directory / artifact.GOLDEN)
        manifest = _manifest(request, source, lowering, axes, preprocessing, made, target, tolerance)
        report |= {
            "size_bytes": sum((staging.directory / name).stat().st_size for name in made.files),
            "seconds": clock.seconds,
            "machine": machine.describe(),
        }
        return Export(staging.publish(manifest, report), verdict, report)


def lower(source: Checkpoint, preprocessing: Preprocessing, lowering: Lowering, axes: Axes) -> Lowered:
    """The checkpoint as an ONNX graph: emitted, folded, simplified, and described in its metadata."""
    weights = {name: tensor.numpy() for name, tensor in source.weights.items()}
    model = simplify(rewrites.fold(emit(source.spec, weights, lowering, axes)))
    model.producer_version = __version__
    model.metadata_props.update(
        {
            "s2mlp.spec": json.dumps(SpecEntry.of(source.spec).model_dump(mode="json")),
            "s2mlp.preprocessing": json.dumps(preprocessing.model_dump(mode="json")),
            "s2mlp.labels": json.dumps(source.recorded.labels),
            "s2mlp.checkpoint_sha256": source.sha256,
        }
    )
    return Lowered(model, source.spec, axes, lowering.name, "fp32")


def gate(session: Session, expected: Golden, tolerance: Tolerance, batch: int | None) -> Verdict:
    """Run every golden case through ``session`` and hold the logits against the oracle's."""
    outputs = {case: exporter.run_in_batches(session, x, batch) for case, x in expected.inputs.items()}
    return parity.judge(outputs, expected.logits, tolerance)


def tolerance_for(precision: str, judgement: Judgement) -> Tolerance:
    """The tolerance that follows from how far PyTorch's own float32 run is from the oracle."""
    worst = max(d.relative_l2 for d in judgement.torch_float32.values())
    if not isfinite(worst):
        raise ParityError(
            "PyTorch's own float32 run of this checkpoint overflows on the golden inputs, so no float32 export of it can be "
            "right: look for weights of absurd size with s2mlp-inspect, or export an earlier checkpoint"
        )
    return parity.RULES[precision].tolerance(worst)


def preprocessing_for(
    source: Checkpoint, mean: tuple[float, ...] | None = None, std: tuple[float, ...] | None = None
) -> Preprocessing:
    """Normalization as asked for, else as the checkpoint records it, else ImageNet's.

    Raises:
        UsageError: where the values do not fit the model's channels.
    """
    channels = source.spec.in_channels
    recorded = source.recorded
    assumed = (mean or recorded.mean) is None or (std or recorded.std) is None
    for option, given, stored in (("--mean", mean, recorded.mean), ("--std", std, recorded.std)):
        values = given or stored
        if values is not None and len(values) != channels:
            whose = f"{option} has" if given else f"the checkpoint records for {option}"
            raise UsageError(
                f"{whose} {len(values)} values, and the model's input has {channels} channels: pass {option} with {channels}"
            )
    mean = mean or recorded.mean or (IMAGENET_MEAN if channels == 3 else (0.5,) * channels)
    std = std or recorded.std or (IMAGENET_STD if channels == 3 else (0.5,) * channels)
    if min(std) <= 0:
        raise UsageError(f"--std must be positive, and has {min(std)}")
    return Preprocessing(mean=mean, std=std, channel_order="L" if channels == 1 else "RGB", assumed=assumed)


def _exporter(request: Request) -> Exporter:
    target = exporter.find(request.format)
    if request.precision not in target.precisions:
        raise UsageError(
            f"--format {request.format} cannot be made with --precision {request.precision}: expected "
            + " or ".join(target.precisions)
        )
    if request.precision not in parity.RULES:
        raise UsageError(
            f"there is no tolerance for --precision {request.precision}: expected {', '.join(parity.RULES)}"
        )
    return target


def _load(request: Request) -> Checkpoint:
    return checkpoint.load(
        request.checkpoint,
        layout=layouts.find(request.layout) if request.layout is not None else None,
        wrapper=request.weights,
        image_size=request.image_size,
        shift=Shift(request.offsets, "paper" if request.semantics == "auto" else request.semantics),
    )


def _check_labels(source: Checkpoint, listener: Listener) -> Checkpoint:
    labels = source.recorded.labels
    if labels is None or len(labels) == source.spec.classes:
        return source
    listener.warn(
        f"the checkpoint records {len(labels)} class names, and the model has {source.spec.classes} classes: the names are "
        "left out of the bundle"
    )
    return replace(source, recorded=replace(source.recorded, labels=None))


def _read_data(request: Request, source: Checkpoint, preprocessing: Preprocessing) -> Data | None:
    if request.data is None:
        return None
    if source.spec.in_channels not in (1, 3):
        raise DataError(
            f"the model takes {source.spec.in_channels} channels, which image files do not have; leave out --data"
        )
    found = images.find_labelled(request.data, source.spec.classes, source.recorded.labels).spread(request.data_count)
    return Data(images.load(found.paths, preprocessing, source.spec.image_size), np.array(found.labels))


def _settle_semantics(
    source: Checkpoint, request: Request, data: Data | None, listener: Listener, clock: _Stopwatch
) -> tuple[Checkpoint, list[Evidence]]:
    @lru_cache
    def model(semantics: Semantics) -> reference.S2MLP:
        return reference.build(source.spec.with_shift(Shift(request.offsets, semantics)), source.weights)

    def run(semantics: Semantics, x: Array) -> Array:
        return oracles.run(model(semantics), x)

    found = []
    if request.reference:
        with clock.step("comparing the reference with both shift semantics"):
            found.append(evidence.weigh_reference(request.reference, source.spec, run))
    if data:
        with clock.step("measuring accuracy under both shift semantics"):
            found.append(evidence.weigh_images(data.images, data.labels, source.spec.classes, run))
    semantics = evidence.decide(request.semantics, found)
    if not found and semantics == "paper" and request.semantics == "paper":
        for text in checkpoint.warnings(source):
            listener.warn(text)
    return replace(source, spec=source.spec.with_shift(Shift(request.offsets, semantics))), found


def _golden_images(data: Data | None) -> Array | None:
    if data is None:
        return None
    count = min(GOLDEN_IMAGES, len(data.images))
    chosen: Array = data.images[[i * len(data.images) // count for i in range(count)]]
    return chosen


def _judge_images(
    session: Session, model: reference.S2MLP, data: Data, tolerance: Tolerance, batch: int | None
) -> dict[str, Any]:
    """Accuracy on the labelled images, and that no prediction differs from the checkpoint's."""
    expected = oracles.run(model, data.images)
    step = batch or oracles.BATCH
    actual = np.concatenate(
        [exporter.run_in_batches(session, data.images[i : i + step], batch) for i in range(0, len(data.images), step)]
    )
    verdict = parity.judge({"images": actual}, {"images": expected}, tolerance)
    if not verdict.passed:
        raise ParityError(_failure(verdict))
    return {
        "count": len(data.labels),
        "accuracy": float((actual.argmax(1) == data.labels).mean()),
        "accuracy_pytorch": float((expected.argmax(1) == data.labels).mean()),
        "top1_agreement": verdict.distances["images"].top1_agreement,
    }


def _manifest(
    request: Request, source: Checkpoint, lowering: Lowering, axes: Axes, preprocessing: Preprocessing,
    made: artifact.Artifact, target: Exporter, tolerance: Tolerance | None,
) -> Manifest:  # fmt: skip
    spec = source.spec
    files = sorted([*made.files, *([artifact.GOLDEN] if request.gate else [])])
    return Manifest(
        tool_version=__version__,
        format=request.format,
        precision=request.precision,
        lowering=lowering.name,
        spec=SpecEntry.of(spec),
        source=Source(sha256=source.sha256, layout=source.layout.name, weights=source.wrapper, dtypes=source.dtypes),
        preprocessing=preprocessing,
        labels=source.recorded.labels,
        input=TensorEntry(name=INPUT, dtype="float32", shape=axes.shape(spec.in_channels)),
        output=TensorEntry(name=OUTPUT, dtype="float32", shape=(request.batch or "batch", spec.classes)),
        opset=OPSET,
        versions={**target.versions(), **machine.installed(("numpy", "torch"))},
        artifact=made.main,
        files={name: sha256(made.directory / name) for name in files},
        tolerance=ToleranceEntry.of(tolerance) if tolerance else None,
        verdict="passed" if request.gate else "not judged",
    )


def _figures(verdict: Verdict, judgement: Judgement) -> dict[str, Any]:
    return {
        "distances": {case: vars(d) for case, d in verdict.distances.items()},
        "pytorch_float32_distances": {case: vars(d) for case, d in judgement.torch_float32.items()},
    }


def _failure(verdict: Verdict) -> str:
    lines = "; ".join(f"{c.case}: {c.quantity} {c.measured:.3g}, limit {c.limit:.3g}" for c in verdict.failures[:6])
    return (
        f"the artifact does not compute what the checkpoint computes, so nothing was published ({lines}). Please report "
        "this with the output of s2mlp-inspect CKPT --json and s2mlp-doctor"
    )


class _Stopwatch:
    """Announces steps and keeps how long each took."""

    def __init__(self, listener: Listener, clock: Callable[[], float] = time.perf_counter) -> None:
        self._listener, self._clock = listener, clock
        self.seconds: dict[str, float] = {}

    def step(self, what: str) -> AbstractContextManager[object]:
        return _Step(self, what)

    def _measure(self, what: str, seconds: float) -> None:
        self.seconds[what] = round(seconds, 3)


class _Step(AbstractContextManager[object]):
    def __init__(self, watch: _Stopwatch, what: str) -> None:
        self._watch, self._what = watch, what
        self._shown = watch._listener.step(what)

    def __enter__(self) -> None:
        self._start = self._watch._clock()
        self._shown.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._watch._measure(self._what, self._watch._clock() - self._start)
        self._shown.__exit__(*error)
