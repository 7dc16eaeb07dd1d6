"""Heads and tails are attached as a pass: only to a graph that has none, and with no other interface than manifests record."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir
import pytest

from helpers.support import random_model, small_spec, weights_of
from s2mlp_deploy.errors import InternalError, ParityError
from s2mlp_deploy.families.s2mlp.emit import S2MLPEmitter
from s2mlp_deploy.graph.lowered import Axes, Lowered
from s2mlp_deploy.graph.spatial_shift import LOWERINGS
from s2mlp_deploy.passes import attach_io
from s2mlp_deploy.schema.manifest import Interface, Preprocessing

IMAGENET = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
BYTES_TO_BEST = Interface(input="uint8", output="top5")


@pytest.fixture(scope="module")
def graph() -> Lowered:
    spec = small_spec()
    axes = Axes(None, spec.image_size)
    return Lowered(
        S2MLPEmitter.emit(spec, weights_of(random_model(spec)), LOWERINGS["gather"], axes), spec, axes, "gather", "fp32"
    )


def test_inputs_and_outputs_are_those_of_the_interface(graph: Lowered) -> None:
    model = attach_io.attach(graph, BYTES_TO_BEST, IMAGENET)
    (image,), outputs = model.graph.inputs, model.graph.outputs
    assert (image.name, image.dtype, image.shape) == ("input", ir.DataType.UINT8, ir.Shape(["batch", 20, 28, 3]))
    assert [value.name for value in outputs] == ["top5_scores", "top5_classes"]


def test_a_second_head_is_refused(graph: Lowered) -> None:
    once = replace(graph, model=attach_io.attach(graph, BYTES_TO_BEST, IMAGENET))
    with pytest.raises(InternalError, match=r"gives .*top5_scores.*expected input and logits"):
        attach_io.attach(once, BYTES_TO_BEST, IMAGENET)


def test_an_interface_that_is_not_the_recorded_one_is_caught(graph: Lowered, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attach_io, "_attach_tail", lambda *_: None)
    with pytest.raises(ParityError, match=r"nothing was published: the graph's interface is .*'logits'.*expected"):
        attach_io.attach(graph, BYTES_TO_BEST, IMAGENET)
