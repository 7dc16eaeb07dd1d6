"""The emitted graph: its names, its operators, its numbers, for every shape of model."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from helpers.graph_run import run_graph
from helpers.support import pyramid_spec, random_model, small_spec, weights_of, with_biases, with_stem_norms
from s2mlp_deploy.errors import SimplifierError
from s2mlp_deploy.families.s2mlp.emit import S2MLPEmitter
from s2mlp_deploy.families.s2mlp.spec import S2MLPSpec, Stage
from s2mlp_deploy.gate import reference_logits
from s2mlp_deploy.gate.distance import compare
from s2mlp_deploy.graph.lowered import Axes
from s2mlp_deploy.graph.spatial_shift import LOWERINGS
from s2mlp_deploy.passes.fold_layernorm import FoldLayerNormAffineIntoGemm
from s2mlp_deploy.passes.run_passes import run_passes
from s2mlp_deploy.passes.simplify import Simplify
from s2mlp_deploy.pipeline.lower import lower
from s2mlp_deploy.schema.shift import DIRECTIONS, Shift, parse_directions
from s2mlp_deploy.schema.spec import Embedding

SPECS = {
    "one stage": small_spec(),
    "pyramid": pyramid_spec(),
    "no biases": with_biases(small_spec(), frozenset()),
    "final norm": replace(small_spec(), final_norm=True),
    "one channel in": replace(small_spec(), in_channels=1),
    "oblong patches": S2MLPSpec((Stage(Embedding((6, 4), (2, 4), (2, 0)), 13, 26, 1),), classes=7, image_size=(20, 28)),
    "other epsilon": replace(with_stem_norms(small_spec()), final_norm=True, norm_epsilon=1e-3),
    "in place": small_spec(shift=Shift(semantics="inplace")),
    "eight directions": small_spec(shift=Shift(DIRECTIONS["8"])),
    "horizontal": small_spec(shift=Shift(DIRECTIONS["horizontal"])),
    "zero border": small_spec(shift=Shift(border="zero")),
    "wrapped border, eight directions": small_spec(shift=Shift(DIRECTIONS["8"], border="wrap")),
    "width first": small_spec(shift=Shift(parse_directions("w+,w-,h+,h-"))),
    "stem norms": with_stem_norms(pyramid_spec()),
    "norm after the mean": replace(small_spec(), final_norm=True, norm_after_mean=True),
    "map of one row": small_spec(image_size=(4, 28)),
    "map of one position": small_spec(image_size=(4, 4)),
}


def lowered(spec: S2MLPSpec, lowering: str, axes: Axes) -> ir.Model:
    return lower(spec, weights_of(random_model(spec)), LOWERINGS[lowering], axes).model


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize("lowering", LOWERINGS)
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic size"])
def test_the_graph_computes_what_the_reference_computes(spec: S2MLPSpec, lowering: str, dynamic: bool) -> None:
    if LOWERINGS[lowering].refusal(spec.shift, dynamic_size=dynamic):
        pytest.skip("refused, and tested as such")
    model = lowered(spec, lowering, Axes(None, None if dynamic else spec.image_size))
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    height, width = spec.image_size
    for size in [(height, width), (height + 8, width + 16)][: 2 if dynamic else 1]:
        x = np.random.default_rng(0).standard_normal((3, spec.in_channels, *size)).astype(np.float32)
        expected = reference_logits.run(random_model(spec), x, torch.float64)
        assert compare(run_graph(model, input=x), expected).relative_l2 < 2e-6


def test_nodes_are_named_after_the_layers_they_stand_for() -> None:
    spec = small_spec()
    model = lowered(spec, "gather", Axes(1, spec.image_size))
    names = {node.name for node in model.graph}
    assert {"stage0/embedding/conv", "stage0/block00/fc1", "stage0/block01/gelu2", "head/mean", "logits"} <= names
    assert all(name.startswith(("stage0/", "head/", "logits")) for name in names)
    parameters = {n for n in model.graph.initializers if n.endswith((".weight", ".bias"))}
    assert "stage0.blocks.1.fc4.weight" in parameters


def test_channel_mlps_are_two_dimensional_gemms_and_norms_and_gelus_single_operators() -> None:
    spec = small_spec(depth=3)
    ops = Counter(node.op_type for node in lowered(spec, "gather", Axes(None, spec.image_size)).graph)
    assert ops == {
        "Conv": 1,
        "Transpose": 1,
        "Reshape": 1 + 2 + 2 * 3,
        "LayerNormalization": 6,
        "Gemm": 4 * 3 + 1,
        "Gelu": 6,
        "Split": 3,
        "Gather": 12,
        "Concat": 3,
        "Add": 6,
        "ReduceMean": 2,
    }


def test_groups_of_one_width_are_shifted_by_a_single_lookup() -> None:
    spec = small_spec(channels=16, depth=3)
    ops = Counter(node.op_type for node in lowered(spec, "gather", Axes(None, spec.image_size)).graph)
    assert ops["Gather"] == 3 and not ops.keys() & {"Split", "Concat"}


def test_weights_are_shared_with_the_checkpoint_not_copied() -> None:
    spec = small_spec()
    weights = weights_of(random_model(spec))
    model = S2MLPEmitter.emit(spec, weights, LOWERINGS["gather"], Axes(1, spec.image_size))
    name = "stages.0.blocks.0.fc3.weight"
    assert np.shares_memory(
        model.graph.initializers[name.replace("stages.", "stage")].const_value.numpy(), weights[name]
    )


def test_a_fixed_batch_and_size_stand_in_the_interface_and_dynamic_ones_have_names() -> None:
    spec = small_spec()
    fixed = lowered(spec, "slice", Axes(2, spec.image_size)).graph
    assert list(fixed.inputs[0].shape) == [2, 3, 20, 28]
    assert list(fixed.outputs[0].shape) == [2, 7]
    free = lowered(spec, "slice", Axes(None, None)).graph
    assert [str(d.value) if isinstance(d, ir.SymbolicDim) else d for d in free.inputs[0].shape] == [
        "batch",
        3,
        "height",
        "width",
    ]


def test_the_simplifier_never_sees_weights_and_gives_every_one_back_unchanged() -> None:
    spec = small_spec(channels=32)
    before = S2MLPEmitter.emit(spec, weights_of(random_model(spec)), LOWERINGS["slice"], Axes(1, spec.image_size))
    before = run_passes(before, FoldLayerNormAffineIntoGemm())
    arrays = {n: v.const_value.numpy().copy() for n, v in before.graph.initializers.items()}
    after = run_passes(before, Simplify())
    assert [v.name for v in after.graph.inputs] == ["input"]
    for name, value in after.graph.initializers.items():
        if name in arrays:
            np.testing.assert_array_equal(value.const_value.numpy(), arrays[name])
    assert {n for n in arrays if n.endswith((".weight", ".bias"))} <= set(after.graph.initializers)


def test_a_graph_that_the_simplifier_cannot_read_is_an_error() -> None:
    spec = small_spec()
    model = S2MLPEmitter.emit(spec, weights_of(random_model(spec)), LOWERINGS["gather"], Axes(1, spec.image_size))
    next(iter(model.graph)).op_type = "NoSuchOperator"
    with pytest.raises(SimplifierError, match="nothing was exported"):
        run_passes(model, Simplify())


def test_a_simplifier_that_drops_an_input_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxsim

    def drop_last_input(proto: onnx.ModelProto, **_: object) -> tuple[onnx.ModelProto, bool]:
        del proto.graph.node[-1].input[2:]  # the head's bias
        del proto.graph.input[-1]
        return proto, True

    monkeypatch.setattr(onnxsim, "simplify", drop_last_input)
    spec = small_spec(channels=32, classes=300)
    model = S2MLPEmitter.emit(spec, weights_of(random_model(spec)), LOWERINGS["gather"], Axes(1, spec.image_size))
    with pytest.raises(SimplifierError, match=r"changed the graph's interface.*head\.fc\.bias"):
        run_passes(model, Simplify())
