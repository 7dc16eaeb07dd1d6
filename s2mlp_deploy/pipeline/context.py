"""Everything that is settled before a graph is written: the checkpoint, its preprocessing, its shift."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from s2mlp_deploy.checkpoint.load import Checkpoint, checkpoint_notes, checkpoint_warnings, load_checkpoint
from s2mlp_deploy.data import images
from s2mlp_deploy.data.image_files import describe
from s2mlp_deploy.data.image_folders import LabelledFolder, find_labelled, find_pictures
from s2mlp_deploy.data.labels import read_labels, shared
from s2mlp_deploy.errors import DataError
from s2mlp_deploy.families.reference import ReferenceModel
from s2mlp_deploy.families.registry import builtin_layouts, family_of, find_layout
from s2mlp_deploy.gate import golden_images, reference_logits, structure_evidence
from s2mlp_deploy.gate import shift_evidence as evidence
from s2mlp_deploy.gate.golden_images import Pictures
from s2mlp_deploy.gate.shift_evidence import Evidence
from s2mlp_deploy.pipeline import resolve_preprocessing
from s2mlp_deploy.pipeline.request import Request
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.manifest import Preprocessing
from s2mlp_deploy.schema.shift import Semantics
from s2mlp_deploy.schema.spec import categories
from s2mlp_deploy.system.progress import Progress
from s2mlp_deploy.system.wording import counted


@dataclass(frozen=True)
class Data:
    """Labelled images, prepared: (count, channels, height, width) float32 and (count,) int64.

    ``files`` are what they were read from, where they were files, ``folder`` what was made of their folder, and ``as_text``
    other labels that it may have meant (image_folders.LabelledImages).
    """

    images: Array
    labels: Array
    files: tuple[Path, ...] = ()
    folder: LabelledFolder | None = None
    as_text: Array | None = None


@dataclass(frozen=True)
class Prepared:
    """A checkpoint whose shift semantics is settled, and what belongs to it; ``pictures`` are to travel in the bundle."""

    source: Checkpoint
    preprocessing: Preprocessing
    data: Data | None
    evidence: tuple[Evidence, ...]
    pictures: Pictures | None = None

    def without_weights(self) -> Prepared:
        """The same, letting go of the checkpoint's tensors."""
        return replace(self, source=replace(self.source, weights={}))


def prepare(request: Request, progress: Progress) -> Prepared:
    """Read the checkpoint and the images, and settle the shift semantics.

    Raises:
        CheckpointError, LayoutError, DataError: where a file cannot be used.
        EvidenceError: where the evidence contradicts the request, or decides nothing.
        UsageError: where options do not fit the model.
    """
    with progress.step("reading the checkpoint"):
        source = _settle_labels(_load(request), request, progress)
        preprocessing = resolve_preprocessing.preprocessing_for(source, request)
        for text in [*checkpoint_notes(source), *resolve_preprocessing.warnings(source, request, preprocessing)]:
            progress.warn(text)
        data = _read_data(request, source, preprocessing, progress)
        pictures = _choose_pictures(request, source, preprocessing, data, progress)
    source, found = _settle_semantics(source, request, data, progress)
    return Prepared(source, preprocessing, data, tuple(found), pictures)


def _load(request: Request) -> Checkpoint:
    return load_checkpoint(
        request.source,
        layout=find_layout(request.layout) if request.layout is not None else None,
        wrapper=request.weights,
        image_size=request.image_size,
        offsets=request.offsets,
        semantics=None if request.semantics == "auto" else request.semantics,
    )


def _settle_labels(source: Checkpoint, request: Request, progress: Progress) -> Checkpoint:
    labels, classes = source.recorded.labels, categories(source.spec.classes)
    if request.labels is not None:
        given = read_labels(request.labels, classes)
        if labels is not None and labels != given:
            progress.warn(f"the checkpoint records {counted(len(labels), 'class name')}, and --labels replaces them")
        if several := shared(given):
            progress.warn(f"{request.labels} gives the same name to several classes: {', '.join(several)}")
        return replace(source, recorded=replace(source.recorded, labels=given))
    if labels is None or len(labels) == classes:
        return source
    progress.warn(
        f"the checkpoint records {counted(len(labels), 'class name')}, and the model has {counted(classes, 'class')}: the names are left out of "
        "the bundle"
    )
    return replace(source, recorded=replace(source.recorded, labels=None))


def _read_data(request: Request, source: Checkpoint, preprocessing: Preprocessing, progress: Progress) -> Data | None:
    if request.data is None:
        return None
    _check_channels(source, "--data")
    found = find_labelled(request.data, source.spec.classes, source.recorded.labels).spread(request.data_count)
    if empty := found.folder.empty:
        held = "; ".join(f"{name} ({describe(left_out) or 'empty'})" for name, left_out in list(empty.items())[:5])
        progress.warn(
            f"{len(empty)} of the subfolders of {request.data} hold no image that is read, so nothing is known of their "
            f"classes: {held}{'; …' if len(empty) > 5 else ''}"
        )
    prepared = images.load(found.paths, preprocessing, source.spec.image_size)
    as_text = np.array(found.as_text) if found.as_text else None
    return Data(prepared, np.array(found.labels), found.paths, found.folder, as_text)


def _choose_pictures(
    request: Request, source: Checkpoint, preprocessing: Preprocessing, data: Data | None, progress: Progress
) -> Pictures | None:
    """From --golden-images, or else some of --data."""
    if request.golden_images is not None:
        _check_channels(source, "--golden-images")
        found, classes = find_pictures(request.golden_images, source.spec.classes, source.recorded.labels)
        rows = golden_images.small_ones(found)
        if not rows:
            raise DataError(
                f"every image in {request.golden_images} has more than {golden_images.MOST_PIXELS:,} pixels: golden images "
                "travel in the bundle, so give smaller ones"
            )
        files = [found[i] for i in rows]
        prepared = images.load(files, preprocessing, source.spec.image_size)
        return Pictures(prepared, rows, tuple(files), tuple(classes[i] for i in rows))
    if data is None:
        return None
    pictures = Pictures.choose(data.images, data.files, [int(label) for label in data.labels])
    if not pictures.files:
        progress.warn(
            f"every image in {request.data} has more than {golden_images.MOST_PIXELS:,} pixels, so none travels in the bundle; "
            "pass smaller ones with --golden-images"
        )
    return pictures


def _check_channels(source: Checkpoint, option: str) -> None:
    if source.spec.in_channels not in (1, 3):
        raise DataError(
            f"the model takes {counted(source.spec.in_channels, 'channel')}, which image files do not have; leave out {option}"
        )


def _settle_semantics(
    source: Checkpoint, request: Request, data: Data | None, progress: Progress
) -> tuple[Checkpoint, list[Evidence]]:
    @lru_cache
    def model(semantics: Semantics) -> ReferenceModel:
        return family_of(source.spec).build(source.spec.with_semantics(semantics), source.weights)

    def run(semantics: Semantics, x: Array) -> Array:
        return reference_logits.run(model(semantics), x)

    def explain(images: Array, recorded: Array) -> str | None:
        fits = structure_evidence.find(source.spec, source.weights, images, recorded, evidence.FITS_RELATIVE_L2)
        own = source.layout not in builtin_layouts()
        return structure_evidence.describe(fits, source.spec, source.layout.name, own=own) if fits else None

    found = []
    if request.reference:
        with progress.step("comparing the reference with both shift semantics, and others where neither fits"):
            found.append(evidence.weigh_reference(request.reference, source.spec, run, explain))
    if data:
        with progress.step("measuring accuracy under both shift semantics"):
            possible = source.spec.possible_semantics
            found.append(
                evidence.weigh_images(data.images, data.labels, source.spec.classes, run, data.as_text, possible)
            )
    semantics = evidence.decide(request.semantics, found, source.layout.shift_semantics)
    if not any(e.supports for e in found):
        if found:
            reasons = "; ".join(f"{e.reason} ({e})" for e in found)
            progress.warn(f"no evidence decides the shift semantics, and {semantics} is exported: {reasons}")
        for text in checkpoint_warnings(source, None if request.semantics == "auto" else request.semantics):
            progress.warn(text)
    return replace(source, spec=source.spec.with_semantics(semantics)), found
