"""The interface of an artifact: the inputs and outputs that a manifest records, and refusals of interfaces that cannot be.

passes/attach_io.py gives a graph such an interface.
"""

from __future__ import annotations

from s2mlp_deploy.errors import UsageError
from s2mlp_deploy.graph import resize
from s2mlp_deploy.graph.layer import INPUT, OUTPUT
from s2mlp_deploy.graph.lowered import Axes
from s2mlp_deploy.schema.manifest import Interface, Preprocessing
from s2mlp_deploy.schema.spec import Spec
from s2mlp_deploy.schema.tensor_entry import TensorEntry
from s2mlp_deploy.system.wording import counted

PROBABILITIES, SCORES, CLASSES = "probabilities", "top5_scores", "top5_classes"
BEST = 5


def refuse(interface: Interface, preprocessing: Preprocessing, spec: Spec, *, dynamic_size: bool) -> None:
    """Refuse an ``interface`` that the model or the other options do not allow.

    Raises:
        UsageError: naming the option and the remedy.
    """
    if interface.output == "top5" and spec.classes == 1:
        raise UsageError(
            "--answer top5 ranks classes, and the model gives one logit: use --answer probabilities, which gives its sigmoid, or "
            "logits"
        )
    if interface.input == "float":
        return
    if spec.in_channels not in (1, 3):
        raise UsageError(
            f"--input {interface.input} is for images, and the model takes {counted(spec.in_channels, 'channel')}, which images do not have: "
            "leave it out"
        )
    if interface.input == "image":
        if dynamic_size:
            raise UsageError(
                "--input image brings every image to one size, which --dynamic-size leaves open: leave out one of them"
            )
        if preprocessing.interpolation not in resize.FILTERS:
            raise UsageError(
                f"--input image cannot resize with --interpolation {preprocessing.interpolation}: expected "
                f"{' or '.join(resize.FILTERS)}, if the model was trained with that; else --input uint8"
            )


def input_entry(interface: Interface, spec: Spec, axes: Axes, dtype: str) -> TensorEntry:
    """The manifest's line on the input, whose type is ``dtype`` where it is float."""
    batch, channels, height, width = axes.shape(spec.in_channels)
    if interface.input == "float":
        return TensorEntry(name=INPUT, dtype=dtype, shape=(batch, channels, height, width), layout="NCHW")
    if interface.input == "image":
        batch, height, width = 1, "height", "width"
    return TensorEntry(name=INPUT, dtype="uint8", shape=(batch, height, width, channels), layout="NHWC")


def output_entries(interface: Interface, spec: Spec, axes: Axes, dtype: str) -> tuple[TensorEntry, TensorEntry | None]:
    """The manifest's lines on the first and the second output; ``dtype`` is that of logits."""
    batch = axes.batch or "batch"
    if interface.output == "logits":
        return TensorEntry(name=OUTPUT, dtype=dtype, shape=(batch, spec.classes)), None
    if interface.output == "probabilities":
        return TensorEntry(name=PROBABILITIES, dtype="float32", shape=(batch, spec.classes)), None
    best = min(BEST, spec.classes)
    return (
        TensorEntry(name=SCORES, dtype="float32", shape=(batch, best)),
        TensorEntry(name=CLASSES, dtype="int64", shape=(batch, best)),
    )
