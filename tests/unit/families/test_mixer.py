"""MLP-Mixer as a family: its graph, its module and its JSON agree."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers.graph_run import run_graph
from s2mlp_deploy.errors import SpecError, UsageError
from s2mlp_deploy.families.mixer.spec import MixerSpec
from s2mlp_deploy.families.reference import activations, logits
from s2mlp_deploy.families.registry import family_of, find_family, read_spec
from s2mlp_deploy.gate.distance import compare
from s2mlp_deploy.graph.lowered import Axes
from s2mlp_deploy.graph.spatial_shift import LOWERINGS
from s2mlp_deploy.schema.spec import Embedding

SPEC = MixerSpec(Embedding((4, 4), (4, 4)), 14, 6, 26, 2, classes=7, image_size=(20, 28))


def weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        name: 1 + 0.2 * torch.randn(shape, generator=generator)
        if "norm" in name and name.endswith("weight")
        else 0.3 * torch.randn(shape, generator=generator)
        for name, shape in SPEC.parameter_shapes().items()
    }


@pytest.mark.parametrize("norm_after_mean", [False, True])
def test_the_graph_and_each_of_its_layers_compute_what_the_module_does(
    norm_after_mean: bool,
) -> None:
    spec = replace(SPEC, norm_after_mean=norm_after_mean)
    model = family_of(spec).build(spec, weights())
    arrays = {name: tensor.numpy() for name, tensor in weights().items()}
    graph = family_of(spec).emit(spec, arrays, LOWERINGS["gather"], Axes(None, spec.image_size))
    images = np.random.default_rng(1).standard_normal((3, 3, *spec.image_size), np.float32)
    expected = logits(model.double(), torch.from_numpy(images).double()).numpy()
    assert expected.std() > 0.1
    assert compare(run_graph(graph, input=images), expected).relative_l2 < 2e-6
    names = [name for name, _ in activations(model, torch.from_numpy(images).double())]
    assert names == list(spec.layer_maps())
    assert set(names) <= {str(node.name) for node in graph.graph}


def test_the_module_has_the_parameters_of_the_spec() -> None:
    state = family_of(SPEC).build(SPEC, weights()).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == SPEC.parameter_shapes()


def test_every_layer_that_int8_may_quantize_is_a_node_of_the_graph_and_reads_one() -> None:
    arrays = {name: tensor.numpy() for name, tensor in weights().items()}
    graph = family_of(SPEC).emit(SPEC, arrays, LOWERINGS["gather"], Axes(1, SPEC.image_size)).graph
    nodes = {str(node.name) for node in graph}
    layers = [*family_of(SPEC).block_layers(SPEC), *family_of(SPEC).end_layers(SPEC)]
    assert len(layers) == 4 * SPEC.depth + 2
    assert {layer.name for layer in layers} <= nodes
    assert {layer.activation for layer in layers} <= nodes | {"input"}
    assert {product.name for product in SPEC.products()} <= nodes


def test_a_spec_is_the_same_after_a_round_trip_through_json_which_names_the_family() -> None:
    content = SPEC.to_json()
    assert content["family"] == "mixer"
    assert read_spec(json.loads(json.dumps(content))) == SPEC


def test_another_image_size_takes_other_weights() -> None:
    with pytest.raises(UsageError, match="cannot serve every image size"):
        family_of(SPEC).emit(SPEC, {}, LOWERINGS["gather"], Axes(1, None))


def test_a_family_that_is_not_known_is_refused_by_name() -> None:
    with pytest.raises(SpecError, match="no family of networks is called 'vit': expected s2mlp, s2mlp_v2, mixer"):
        find_family("vit")
    with pytest.raises(SpecError, match="'vit'"):
        read_spec({"family": "vit"})
