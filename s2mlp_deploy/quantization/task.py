"""The inputs of a quantization, which the pipeline takes from a request and a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass

from s2mlp_deploy.data.labelled_data import LabelledData
from s2mlp_deploy.families.reference import ReferenceModel
from s2mlp_deploy.gate.io_adapter import IoAdapter
from s2mlp_deploy.quantization.settings import Int8


@dataclass(frozen=True)
class QuantizationTask:
    """How a graph is quantized: the user's ``settings``, the ``target``, and the float ``model`` whose accuracy it must keep.

    ``adapter`` turns images into the artifact's inputs; ``data`` are labelled images that evaluate the result.
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
