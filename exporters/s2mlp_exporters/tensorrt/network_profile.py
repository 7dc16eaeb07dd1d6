"""The ranges of input shapes that an engine of any network is built for, one range for each input."""

from __future__ import annotations

from collections.abc import Mapping

from s2mlp_deploy.bundle.network_golden import Tensors
from s2mlp_deploy.errors import UsageError
from s2mlp_deploy.schema.onnx_network import OnnxNetwork
from s2mlp_deploy.schema.tensor_entry import TensorEntry
from s2mlp_exporters.tensorrt.options import EngineOptions
from s2mlp_exporters.tensorrt.profile import DEFAULT_BATCHES, Profile, Shape, format_shape, parse_batches

TYPES = ("float32", "float16", "int64", "int32", "int8", "uint8", "bool")
"""What engines take and give. TensorRT makes float32 of float64, which the golden outputs are not."""


def profiles_for(network: OnnxNetwork, golden: Mapping[str, Tensors], options: EngineOptions) -> Mapping[str, Profile]:
    """A profile for each input, by name. Fixed sizes stay; a free first axis is the batch, whose range ``options`` may give; the
    others range over the sizes of ``golden``, the golden inputs by case, all of which the engine takes.

    Raises:
        UsageError: where a given range does not fit the network, or no golden input has a size that is free.
    """
    if options.size_profile is not None:
        raise UsageError(
            f"--size-profile {options.size_profile}: for image classifiers, and engines of repaired networks take the sizes of the "
            "golden inputs: leave it out"
        )
    for entry in (*network.inputs, *network.outputs):
        if entry.dtype not in TYPES:
            raise UsageError(
                f"{entry.name} is {entry.dtype}, and engines take and give {', '.join(TYPES)}: "
                "use --format ort or openvino"
            )
    found = {
        entry.name: [arrays[entry.name].shape for arrays in golden.values() if entry.name in arrays]
        for entry in network.inputs
    }
    batches = _batches(network, found, options.batch)
    return {entry.name: _profile(entry, found[entry.name], batches) for entry in network.inputs}


def _is_free_batch(entry: TensorEntry) -> bool:
    return bool(entry.shape) and isinstance(entry.shape[0], str)


def _batches(network: OnnxNetwork, golden: Mapping[str, list[Shape]], given: str | None) -> Shape:
    """The smallest, the most usual and the largest batch; without ``given``, large enough for ``golden``."""
    if given is None:
        most = (shape[0] for entry in network.inputs if _is_free_batch(entry) for shape in golden[entry.name])
        return (*DEFAULT_BATCHES[:2], max((DEFAULT_BATCHES[2], *most)))
    if not any(map(_is_free_batch, network.inputs)):
        raise UsageError(f"--batch {given}: no input of the network has a free batch: leave it out")
    return parse_batches(given)


def _profile(entry: TensorEntry, golden: list[Shape], batches: Shape) -> Profile:
    ranges = []
    for axis, size in enumerate(entry.shape):
        if isinstance(size, int):
            ranges.append((size, size, size))
        elif axis == 0:
            ranges.append((batches[0], batches[1], batches[2]))
        elif sizes := [shape[axis] for shape in golden]:
            ranges.append((min(sizes), sizes[0], max(sizes)))
        else:
            raise UsageError(
                f"{entry.name} has the free size {size}, and the bundle has no golden inputs to take its range from: repair the file "
                "again, and keep its golden tensors"
            )
    smallest, usual, largest = (tuple(sizes[i] for sizes in ranges) for i in range(3))
    profile = Profile(smallest, usual, largest)
    if beyond := next((shape for shape in golden if not profile.admits(shape)), None):
        raise UsageError(
            f"--batch leaves out {entry.name} of {format_shape(beyond)}, which the golden inputs have, so the engine could not be "
            f"checked: widen it to reach {beyond[0]}"
        )
    return profile
