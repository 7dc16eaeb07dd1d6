"""Bundles of networks that no family describes, for timing: samples by number, and all outputs of a sample as one row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from s2mlp_deploy.bundle import network_golden
from s2mlp_deploy.bundle.contents import Bundle
from s2mlp_deploy.bundle.network_golden import Tensors
from s2mlp_deploy.errors import UsageError
from s2mlp_deploy.runtime.session import TensorSession
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.onnx_network import OnnxNetwork


@dataclass(frozen=True)
class Samples:
    """Golden inputs of one size by name, (samples, …), and the rows (samples, values) expected for them: the outputs called
    ``names``, side by side."""

    inputs: Tensors
    names: tuple[str, ...]
    rows: Array

    def batch(self, numbers: Array) -> Tensors:
        """The inputs of the samples with these ``numbers``."""
        return {name: x[numbers] for name, x in self.inputs.items()}


def samples_of(bundle: Bundle) -> Samples:
    """The golden samples of ``bundle`` that have the size of its first case.

    Raises:
        UsageError: where its inputs and outputs do not have one batch axis in common.
    """
    network = bundle.manifest.spec
    assert isinstance(network, OnnxNetwork)
    golden = network_golden.load(bundle.golden, network)
    cases = list(golden.inputs)
    sizes = [{name: x.shape[1:] for name, x in golden.inputs[case].items()} for case in cases]
    alike = [case for case, size in zip(cases, sizes, strict=True) if size == sizes[0]]
    for case in alike:
        counts = {x.shape[:1] for x in (*golden.inputs[case].values(), *golden.outputs[case].values())}
        if len(counts) > 1 or () in counts:
            raise UsageError(
                f"{bundle.directory} has inputs or outputs without the batch as their first axis, so its times cannot be compared"
            )
    inputs = {name: np.concatenate([golden.inputs[case][name] for case in alike]) for name in golden.inputs[alike[0]]}
    expected = golden.outputs[alike[0]]
    names = tuple(entry.name for entry in network.outputs if entry.name in expected)
    return Samples(inputs, names, np.concatenate([_rows(golden.outputs[case], names) for case in alike]))


def _rows(outputs: Tensors, names: tuple[str, ...]) -> Array:
    """The outputs called ``names``, side by side: (samples, values)."""
    parts = [outputs[name].reshape(len(outputs[name]), -1) for name in names]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


class NetworkSession:
    """A session that takes numbers of samples, and gives their outputs as rows. Each batch is put together once."""

    def __init__(self, session: TensorSession, samples: Samples) -> None:
        self._session, self._samples = session, samples
        self._batches: dict[bytes, Mapping[str, Array]] = {}

    def run(self, images: Array) -> Array:
        """The rows (batch, values) of the samples with the numbers ``images``."""
        key = images.tobytes()
        if key not in self._batches:
            self._batches[key] = self._samples.batch(images)
        return _rows(self._session.compute(self._batches[key]), self._samples.names)
