"""Read a checkpoint and settle its preprocessing and its shift before a graph is written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from s2mlp_deploy.checkpoint.load import (
    Checkpoint,
    checkpoint_notes,
    checkpoint_warnings,
    load_checkpoint,
    refuse_shift,
)
from s2mlp_deploy.data import image_stream, images
from s2mlp_deploy.data.image_files import describe
from s2mlp_deploy.data.image_folders import find_labelled, find_pictures
from s2mlp_deploy.data.labelled_data import LabelledData
from s2mlp_deploy.data.labels import read_labels, shared
from s2mlp_deploy.errors import CheckpointError, DataError
from s2mlp_deploy.families.reference import ReferenceModel
from s2mlp_deploy.families.registry import builtin_layouts, family_of, find_layout
from s2mlp_deploy.gate import golden_images, reference_logits, shift_evidence, structure_evidence
from s2mlp_deploy.gate.golden_images import Pictures
from s2mlp_deploy.pipeline import resolve_preprocessing
from s2mlp_deploy.pipeline.request import EvidenceOptions, RequestedSemantics, Source
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.manifest import Preprocessing
from s2mlp_deploy.schema.report import Evidence
from s2mlp_deploy.schema.shift import Reading
from s2mlp_deploy.schema.spec import categories
from s2mlp_deploy.system.progress import Progress
from s2mlp_deploy.system.wording import counted


@dataclass(frozen=True)
class Prepared:
    """A checkpoint whose shift semantics is settled, with its preprocessing; ``pictures`` travel in the bundle."""

    source: Checkpoint
    preprocessing: Preprocessing
    data: LabelledData | None
    evidence: tuple[Evidence, ...]
    pictures: Pictures | None = None

    def without_weights(self) -> Prepared:
        """The same, letting go of the checkpoint's tensors."""
        return replace(self, source=replace(self.source, weights={}))


def prepare(stated: Source, evidence: EvidenceOptions, progress: Progress) -> Prepared:
    """Read the checkpoint and the images, and settle the shift semantics.

    Raises:
        CheckpointError, LayoutError, DataError: where a file cannot be used.
        EvidenceError: where the evidence contradicts the request, or decides nothing.
        UsageError: where options do not fit the model.
    """
    with progress.step("reading the checkpoint"):
        source = _settle_labels(_load(stated), stated, progress)
        preprocessing = resolve_preprocessing.preprocessing_for(source, stated)
        for text in [*checkpoint_notes(source), *resolve_preprocessing.warnings(source, stated, preprocessing)]:
            progress.warn(text)
        data = _read_data(evidence, source, preprocessing, progress)
        pictures = _choose_pictures(evidence, source, preprocessing, data, progress)
    source, found = _settle_semantics(source, stated.semantics, evidence, data, progress)
    return Prepared(source, preprocessing, data, tuple(found), pictures)


def _load(stated: Source) -> Checkpoint:
    source = load_checkpoint(
        stated.path,
        layout=find_layout(stated.layout) if stated.layout is not None else None,
        wrapper=stated.weights,
        image_size=stated.image_size,
        offsets=stated.offsets,
        semantics=None if stated.semantics == "auto" else stated.semantics,
    )
    refuse_shift(source.spec, stated.offsets, stated.semantics)
    if stated.sha256 is not None and source.sha256 != stated.sha256:
        raise CheckpointError(
            f"{stated.path} is not the file that was requested: its SHA-256 is {source.sha256}, expected {stated.sha256}. It was "
            "changed or replaced meanwhile"
        )
    return source


def _settle_labels(source: Checkpoint, stated: Source, progress: Progress) -> Checkpoint:
    labels, classes = source.recorded.labels, categories(source.spec.classes)
    if stated.labels is not None:
        given = read_labels(stated.labels, classes)
        if labels is not None and labels != given:
            progress.warn(f"the checkpoint records {counted(len(labels), 'class name')}, and --labels replaces them")
        if several := shared(given):
            progress.warn(f"{stated.labels} gives the same name to several classes: {', '.join(several)}")
        return replace(source, recorded=replace(source.recorded, labels=given))
    if labels is None or len(labels) == classes:
        return source
    progress.warn(
        f"the checkpoint records {counted(len(labels), 'class name')}, and the model has {counted(classes, 'class')}: the names are left out of "
        "the bundle"
    )
    return replace(source, recorded=replace(source.recorded, labels=None))


def _read_data(
    evidence: EvidenceOptions, source: Checkpoint, preprocessing: Preprocessing, progress: Progress
) -> LabelledData | None:
    if evidence.data is None:
        return None
    _check_channels(source, "--data")
    found = find_labelled(evidence.data, source.spec.classes, source.recorded.labels).spread(evidence.data_count)
    if empty := found.folder.empty:
        held = "; ".join(f"{name} ({describe(left_out) or 'empty'})" for name, left_out in list(empty.items())[:5])
        progress.warn(
            f"{len(empty)} of the subfolders of {evidence.data} hold no image that is read, so nothing is known of their "
            f"classes: {held}{'; …' if len(empty) > 5 else ''}"
        )
    prepared = image_stream.read(found.paths, preprocessing, source.spec.image_size)
    as_text = np.array(found.as_text) if found.as_text else None
    return LabelledData(prepared, np.array(found.labels), found.paths, found.folder, as_text)


def _choose_pictures(
    evidence: EvidenceOptions,
    source: Checkpoint,
    preprocessing: Preprocessing,
    data: LabelledData | None,
    progress: Progress,
) -> Pictures | None:
    """The golden images: from --golden-images, or else some of --data."""
    if evidence.golden_images is not None:
        _check_channels(source, "--golden-images")
        found, classes = find_pictures(evidence.golden_images, source.spec.classes, source.recorded.labels)
        rows = golden_images.small_ones(found)
        if not rows:
            raise DataError(
                f"every image in {evidence.golden_images} has more than {golden_images.MOST_PIXELS:,} pixels: golden images "
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
            f"every image in {evidence.data} has more than {golden_images.MOST_PIXELS:,} pixels, so none travels in the bundle; "
            "pass smaller ones with --golden-images"
        )
    return pictures


def _check_channels(source: Checkpoint, option: str) -> None:
    if source.spec.in_channels not in (1, 3):
        raise DataError(
            f"the model takes {counted(source.spec.in_channels, 'channel')}, which image files do not have; leave out {option}"
        )


def _settle_semantics(
    source: Checkpoint,
    requested: RequestedSemantics,
    given: EvidenceOptions,
    data: LabelledData | None,
    progress: Progress,
) -> tuple[Checkpoint, list[Evidence]]:
    shifts = bool(source.spec.shifts)

    @lru_cache
    def model(reading: Reading) -> ReferenceModel:
        spec = source.spec if reading == "none" else source.spec.with_semantics(reading)
        return family_of(spec).build(spec, source.weights)

    def run(reading: Reading, x: Array) -> Array:
        return reference_logits.run(model(reading), x)

    def explain(images: Array, recorded: Array) -> str | None:
        fits = structure_evidence.find(source.spec, source.weights, images, recorded, shift_evidence.FITS_RELATIVE_L2)
        own = source.layout not in builtin_layouts()
        return structure_evidence.describe(fits, source.spec, source.layout.name, own=own) if fits else None

    found = []
    if given.reference:
        under = "comparing the reference with both shift semantics, and others where neither fits"
        with progress.step(under if shifts else "comparing the reference with the network"):
            found.append(shift_evidence.weigh_reference(given.reference, source.spec, run, explain))
    if data:
        with progress.step("measuring accuracy under both shift semantics" if shifts else "measuring accuracy"):
            possible = shift_evidence.readings(source.spec)
            found.append(
                shift_evidence.weigh_images(data.images, data.labels, source.spec.classes, run, data.as_text, possible)
            )
    undecided = "the evidence does not show whether the network is the right one"
    if shifts:
        semantics = shift_evidence.decide(requested, found, source.layout.shift_semantics)
        undecided = f"no evidence decides the shift semantics, and {semantics} is exported"
    else:
        shift_evidence.require(found)
    if not any(e.supports for e in found):
        if found:
            progress.warn(f"{undecided}: {'; '.join(f'{e.reason} ({e})' for e in found)}")
        for text in checkpoint_warnings(source, None if requested == "auto" else requested):
            progress.warn(text)
    return replace(source, spec=source.spec.with_semantics(semantics)) if shifts else source, found
