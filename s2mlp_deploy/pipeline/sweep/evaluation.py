"""Measure the accuracy of a published bundle on labelled images, in portions that any process can take.

A portion gives counts, and counts add up. Portions hold whole batches, so several processes find the counts of one, bit for bit, and none
of them holds more images than run together.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from s2mlp_deploy.bundle.contents import MANIFEST, Bundle
from s2mlp_deploy.bundle.read import read_bundle, read_manifest
from s2mlp_deploy.data.image_folders import LabelledImages, find_labelled
from s2mlp_deploy.data.image_stream import ImageStream
from s2mlp_deploy.errors import BundleError, DataError, Error, RuntimeMissingError, UsageError
from s2mlp_deploy.formats import memory_limit
from s2mlp_deploy.formats.base import Format, open_at
from s2mlp_deploy.gate.io_adapter import IoAdapter, class_scores, named_classes
from s2mlp_deploy.pipeline import verify
from s2mlp_deploy.pipeline.sweep.local_workers import LocalWorkers
from s2mlp_deploy.pipeline.sweep.outcome import Failure, failure_of
from s2mlp_deploy.runtime.session import BATCH, HERE, Placement, Session
from s2mlp_deploy.schema.manifest import Manifest
from s2mlp_deploy.schema.onnx_network import OnnxNetwork
from s2mlp_deploy.system.hashing import sha256
from s2mlp_deploy.system.wording import counted

PORTION = 512
"""Images of a portion, or a little more, so that it holds whole batches."""


@dataclass(frozen=True)
class LabelledFolder:
    """Labelled images below ``directory``, one subfolder a class: at most ``count``, evenly over the whole; None: all."""

    directory: Path
    count: int | None = None


@dataclass(frozen=True)
class Portion:
    """Images ``first`` to ``last`` (without it) of ``images``, for the bundle whose manifest has the hash ``manifest``, which runs where
    ``placement`` wants it."""

    key: str
    bundle: Path
    manifest: str
    images: LabelledFolder
    first: int
    last: int
    placement: Placement = HERE

    @property
    def reads(self) -> tuple[Path, ...]:
        """The files and folders that a process must see to work on it."""
        return self.bundle, self.images.directory

    def moved(self, places: Mapping[Path, Path]) -> Portion:
        """The same, with bundle and images where ``places`` has them."""
        images = replace(self.images, directory=places[self.images.directory])
        return replace(self, bundle=places[self.bundle], images=images)

    @property
    def on_gpu(self) -> bool:
        """Whether the bundle runs on a GPU."""
        return verify.on_gpu(Bundle(self.bundle, read_manifest(self.bundle)), self.placement)

    def failed(self, failure: Failure, attempts: int = 1) -> Tally:
        """The tally of a portion that could not be worked on."""
        return Tally(self.key, 0, 0, failure, attempts)


@dataclass(frozen=True)
class Tally:
    """Images, and those of them whose class the artifact named; ``error`` where they could not be tried."""

    key: str
    images: int
    right: int
    error: Failure | None = None
    attempts: int = 1

    @property
    def accuracy(self) -> float | None:
        """The share that was right."""
        return self.right / self.images if self.images else None


def evaluate(bundle: Path, images: LabelledFolder, workers: int = 1, placement: Placement = HERE) -> Tally:
    """The accuracy of the ``bundle`` on ``images``, in this process, or over so many, on the device of ``placement``.

    Raises:
        DataError: where an image cannot be read, or the folders are not the classes.
        BundleError, RuntimeMissingError: where the artifact cannot be run here.
    """
    portions = tuple(replace(one, placement=placement) for one in portions_of(str(bundle), bundle, images))
    if workers == 1:
        return total(map(count, portions))
    found = total(LocalWorkers(tally, min(workers, len(portions))).run(portions))
    if found.error:
        raise _error(found.error)
    return found


def portions_of(key: str, bundle: Path, images: LabelledFolder) -> tuple[Portion, ...]:
    """The ``images``, divided among portions of whole batches.

    Raises:
        DataError, BundleError: as :func:`evaluate`.
    """
    manifest = read_manifest(bundle)
    if isinstance(manifest.spec, OnnxNetwork):
        raise UsageError(
            f"{bundle} holds a repaired network, and labelled images are for classifiers: leave out --data"
        )
    step = manifest.batch or BATCH
    size = -(-PORTION // step) * step
    number, digest = len(_labelled(images, manifest).paths), sha256(bundle / MANIFEST)
    ends = ((first, min(first + size, number)) for first in range(0, number, size))
    return tuple(Portion(f"{key}-{first}-{last}", bundle, digest, images, first, last) for first, last in ends)


def total(tallies: Iterable[Tally]) -> Tally:
    """The sum of ``tallies``, with the first error among them."""
    found = list(tallies)
    errors = [one.error for one in found if one.error]
    return replace(
        found[0],
        images=sum(one.images for one in found),
        right=sum(one.right for one in found),
        error=errors[0] if errors else None,
        attempts=max(one.attempts for one in found),
    )


def tally(portion: Portion, output: Path | None = None) -> Tally:
    """:func:`count`; nothing is raised, and nothing written, to ``output`` or elsewhere."""
    try:
        return count(portion)
    except Exception as error:  # of a runtime, too: the other portions go on
        return portion.failed(failure_of(error))


def count(portion: Portion) -> Tally:
    """Run the images of ``portion``.

    Raises:
        DataError, BundleError, RuntimeMissingError: as :func:`evaluate`.
    """
    opened = _open(portion.bundle, portion.manifest, portion.images, portion.placement)
    rows = slice(portion.first, portion.last)
    files, labels = opened.found.paths[rows], opened.found.labels[rows]
    adapter, right = opened.adapter, 0
    stream = ImageStream(files, adapter.preprocessing, adapter.size)
    done = 0
    for raw in adapter.portions(stream, files):
        scores = class_scores(opened.session, raw, adapter.io, opened.classes)
        named = named_classes(scores, adapter.io.interface)
        right += int((named == labels[done : done + len(raw)]).sum())
        done += len(raw)
    return Tally(portion.key, done, right)


@dataclass(frozen=True)
class _Opened:
    session: Session
    adapter: IoAdapter
    classes: int
    found: LabelledImages


@functools.lru_cache(maxsize=1)
def _open(directory: Path, digest: str, images: LabelledFolder, placement: Placement) -> _Opened:
    """The artifact, ready to run, and its images; each process opens a bundle once."""
    if sha256(directory / MANIFEST) != digest:
        raise BundleError(f"{directory} was replaced while it was evaluated: start again")
    bundle = read_bundle(directory)
    target, _ = verify.checked(bundle)
    on_gpu = verify.on_gpu(bundle, placement)
    with memory_limit.bounded(bundle, on_gpu=on_gpu):
        threads = _threads(target, on_gpu=on_gpu)
        session = open_at(target, bundle.artifact, replace(placement, threads=threads))
    manifest = bundle.manifest
    return _Opened(session, IoAdapter.of(manifest), manifest.classifier.classes, _labelled(images, manifest))


def _threads(target: Format, *, on_gpu: bool) -> int | None:
    """This process's share of the cores, where it is one of several and the runtime has threads to set."""
    has_threads = type(target).open_with_threads is not Format.open_with_threads and not on_gpu
    return int(os.environ.get("OMP_NUM_THREADS", 0)) or None if has_threads else None


def _labelled(images: LabelledFolder, manifest: Manifest) -> LabelledImages:
    classes = manifest.classifier.classes
    if manifest.classifier.in_channels not in (1, 3):
        channels = counted(manifest.classifier.in_channels, "channel")
        raise DataError(f"the model takes {channels}, which image files do not have: leave out --data")
    return _found(images, classes, manifest.labels)


@functools.lru_cache(maxsize=1)
def _found(images: LabelledFolder, classes: int, names: tuple[str, ...] | None) -> LabelledImages:
    found = find_labelled(images.directory, classes, names)
    return found.spread(images.count) if images.count is not None else found


def _error(failure: Failure) -> Error:
    kind = {DataError.exit_code: DataError, RuntimeMissingError.exit_code: RuntimeMissingError}.get(failure.exit_code)
    return (kind or BundleError)(failure.message)
