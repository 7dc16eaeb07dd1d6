"""Labelled images, prepared for a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from s2mlp_deploy.data.image_stream import Images
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.report import LabelledFolder


@dataclass(frozen=True)
class LabelledData:
    """Prepared images (count, channels, height, width) float32 and their class indices (count,) int64.

    ``files`` are their sources, where those were files; ``folder`` records how their folder was read, and ``as_text``
    holds the other labels that it may have meant (image_folders.LabelledImages).
    """

    images: Images
    labels: Array
    files: tuple[Path, ...] = ()
    folder: LabelledFolder | None = None
    as_text: Array | None = None
