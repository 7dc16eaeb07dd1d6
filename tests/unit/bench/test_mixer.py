"""The MLP-Mixer that an S²-MLP is measured beside: its numbers against PyTorch, its costs against the paper's."""

from __future__ import annotations

from collections import Counter
from math import prod

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from helpers.graph_run import run_graph
from helpers.support import pyramid_spec, small_spec
from s2mlp_bench.baselines import mixer
from s2mlp_deploy.errors import SpecError, UsageError
from s2mlp_deploy.families.s2mlp.spec import S2MLPSpec, single_stage
from s2mlp_deploy.gate.distance import compare
from s2mlp_deploy.graph.lowered import Axes
from s2mlp_deploy.schema.size import Size


def values(model: ir.Model) -> dict[str, Tensor]:
    return {
        name: torch.from_numpy(np.array(value.const_value.numpy()))
        for name, value in model.graph.initializers.items()
        if value.const_value is not None
    }


def reference(spec: S2MLPSpec, weights: dict[str, Tensor], images: Tensor) -> Tensor:
    """The paper's equation 1 as its figure 1 draws it: token mixing acts on the transposed table."""

    def fc(x: Tensor, name: str) -> Tensor:
        return F.linear(x, weights[f"{name}.weight"].double(), weights[f"{name}.bias"].double().reshape(-1))

    def norm(x: Tensor, name: str) -> Tensor:
        weight, bias = weights[f"{name}.weight"].double(), weights[f"{name}.bias"].double()
        return F.layer_norm(x, x.shape[-1:], weight, bias, 1e-6)

    (stage,) = spec.stages
    kernel, bias = weights["embedding.weight"].double(), weights["embedding.bias"].double()
    x = F.conv2d(images.double(), kernel, bias, stage.embedding.stride).flatten(2).transpose(1, 2)
    for b in range(stage.depth):
        y = norm(x, f"block{b}.norm1").transpose(1, 2)
        x = x + fc(F.gelu(fc(y, f"block{b}.token1")), f"block{b}.token2").transpose(1, 2)
        x = x + fc(F.gelu(fc(norm(x, f"block{b}.norm2"), f"block{b}.fc3")), f"block{b}.fc4")
    return fc(norm(x, "head.norm").mean(dim=1), "head.fc")


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("dynamic", [False, True], ids=["fixed batch", "any batch"])
def test_it_computes_what_the_papers_equation_says(batch: int, dynamic: bool) -> None:
    spec, size = small_spec(depth=3), (20, 28)
    images = np.random.default_rng(1).standard_normal((batch, 3, *size), np.float32)
    axes = Axes(None if dynamic else batch, size)
    expected = reference(spec, values(mixer.emit(spec, axes, seed=5)), torch.from_numpy(images)).numpy()
    assert expected.std() > 0.1  # weights that would give next to nothing would prove nothing
    for model in (mixer.emit(spec, axes, seed=5), mixer.lower(spec, axes, seed=5).model):
        onnx.checker.check_model(ir.to_proto(model), full_check=True)
        assert compare(run_graph(model, input=images), expected).relative_l2 < 2e-6


def test_every_image_of_a_batch_is_mixed_with_itself_alone() -> None:
    spec = small_spec()
    model = mixer.lower(spec, Axes(None, (20, 28))).model
    images = np.random.default_rng(2).standard_normal((4, 3, 20, 28), np.float32)
    alone = np.concatenate([run_graph(model, input=image[None]) for image in images])
    assert compare(run_graph(model, input=images), alone).relative_l2 < 1e-6


def test_mixer_b_16_costs_what_the_paper_says() -> None:
    """59 M parameters (table 1); 12.6 G multiply-adds is what others count for it."""
    base = single_stage(channels=768, depth=12, patch=16)
    assert mixer.like(base, (224, 224)).parameters() == 59_880_472
    assert 12.6e9 <= mixer.like(base, (224, 224)).macs() < 12.7e9


def test_mixer_s_16_and_l_16_cost_what_the_paper_says() -> None:
    small, large = single_stage(channels=512, depth=8), single_stage(channels=1024, depth=24)
    assert round(mixer.like(small, (224, 224)).parameters() / 1e6, 1) == 18.5
    assert round(mixer.like(large, (224, 224)).parameters() / 1e6) == 208


@pytest.mark.parametrize("size", [(20, 28), (36, 8)])
def test_what_is_counted_is_what_the_graph_holds(size: Size) -> None:
    """Every parameter once; and every product with the shapes that the graph gives it."""
    spec = small_spec(channels=15, depth=3)
    model = mixer.emit(spec, Axes(1, size))
    parameters = [v for name, v in values(model).items() if name.endswith((".weight", ".bias"))]
    assert sum(map(torch.numel, parameters)) == mixer.like(spec, size).parameters()
    inferred = onnx.shape_inference.infer_shapes(ir.to_proto(model))
    shapes = {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (*inferred.graph.value_info, *inferred.graph.output)
    } | {name: list(v.shape) for name, v in values(model).items()}
    macs = 0
    for node in inferred.graph.node:
        if node.op_type == "Gemm":
            transposed = any(a.name == "transB" and a.i for a in node.attribute)
            inner = shapes[node.input[1]][1 if transposed else 0]
            macs += prod(shapes[node.output[0]]) * inner
        elif node.op_type == "Conv":
            macs += prod(shapes[node.output[0]]) * prod(shapes[node.input[1]][1:])
    assert macs == mixer.like(spec, size).macs()


def test_one_transposition_a_block_and_all_products_are_gemms() -> None:
    ops = Counter(node.op_type for node in mixer.lower(small_spec(depth=3), Axes(None, (20, 28))).model.graph)
    assert ops == {
        "Conv": 1,
        "Transpose": 2 + 3,
        "Reshape": 4 + 2 * 3,
        "LayerNormalization": 2 * 3 + 1,
        "Gemm": 4 * 3 + 1,
        "Gelu": 2 * 3,
        "Add": 2 * 3,
        "ReduceMean": 2,
    }


def test_another_image_size_is_another_model() -> None:
    spec = small_spec()
    shapes = {size: mixer.like(spec, size).parameter_shapes() for size in ((20, 28), (28, 40))}
    changed = {name for name, shape in shapes[20, 28].items() if shapes[28, 40][name] != shape}
    assert changed == {
        f"block{b}.{name}" for b in range(2) for name in ("token1.weight", "token2.weight", "token2.bias")
    }
    model = mixer.lower(spec, Axes(None, (20, 28))).model
    with pytest.raises(Exception, match="INVALID_ARGUMENT"):
        run_graph(model, input=np.zeros((1, 3, 28, 40), np.float32))


def test_the_seed_draws_the_weights() -> None:
    first, again, other = (values(mixer.emit(small_spec(), Axes(1, (20, 28)), seed=seed)) for seed in (3, 3, 4))
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not torch.equal(first["block0.fc3.weight"], other["block0.fc3.weight"])


def test_what_has_no_mixer_of_its_form_is_refused_with_the_reason() -> None:
    with pytest.raises(UsageError, match="an MLP-Mixer has one stage, and this S²-MLP has 3"):
        mixer.like(pyramid_spec(), (36, 28))
    with pytest.raises(UsageError, match="one stage"):
        mixer.lower(pyramid_spec(), Axes(1, (36, 28)))
    with pytest.raises(UsageError, match="cannot serve every image size"):
        mixer.emit(small_spec(), Axes(1, None))
    with pytest.raises(SpecError, match="not a multiple of the 4x4 patch"):
        mixer.emit(small_spec(), Axes(1, (20, 27)))
