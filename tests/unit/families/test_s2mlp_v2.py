"""S²-MLPv2 as a family: public code's names lead to its own numbers, and graph, module, spec and counts agree.

The modules below mirror the structure, the keys and the forward pass of public code, and share nothing with s2mlp_deploy.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

from helpers.graph_run import run_graph
from helpers.popular_shift import popular_statements
from helpers.support import random_model, v2_spec, weights_of
from s2mlp_deploy.checkpoint.load import load_checkpoint
from s2mlp_deploy.errors import LayoutError
from s2mlp_deploy.families.reference import activations, logits
from s2mlp_deploy.families.registry import builtin_layouts, family_of, read_spec
from s2mlp_deploy.families.s2mlp_v2.spec import LAYERS, PRESETS, S2MLPv2Spec, two_stages
from s2mlp_deploy.gate.distance import compare
from s2mlp_deploy.graph.lowered import Axes
from s2mlp_deploy.graph.spatial_shift import LOWERINGS
from s2mlp_deploy.pipeline.lower import lower
from s2mlp_deploy.schema.shift import DIRECTIONS, Semantics, Shift
from s2mlp_deploy.schema.size import Size

# Public code


def shift2(x: Tensor) -> Tensor:
    """The public statements for the second part; those for the first are the popular ones."""
    _, w, h, c = x.size()
    x[:, :, 1:, : c // 4] = x[:, :, : h - 1, : c // 4]
    x[:, :, : h - 1, c // 4 : c // 2] = x[:, :, 1:, c // 4 : c // 2]
    x[:, 1:, :, c // 2 : c * 3 // 4] = x[:, : w - 1, :, c // 2 : c * 3 // 4]
    x[:, : w - 1, :, 3 * c // 4 :] = x[:, 1:, :, 3 * c // 4 :]
    return x


def as_meant(first: bool, x: Tensor) -> Tensor:
    """The paper's shift of the first part or the second: no value is read after it was overwritten."""
    y, c = x.clone(), x.shape[-1]
    down, up, right, left = (slice(i * c // 4, (i + 1) * c // 4) for i in ((0, 1, 2, 3) if first else (2, 3, 0, 1)))
    y[:, 1:, :, down] = x[:, :-1, :, down]
    y[:, :-1, :, up] = x[:, 1:, :, up]
    y[:, :, 1:, right] = x[:, :, :-1, right]
    y[:, :, :-1, left] = x[:, :, 1:, left]
    return y


Moves = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]
MOVES: dict[Semantics, Moves] = {
    "paper": (lambda x: as_meant(True, x), lambda x: as_meant(False, x)),
    "inplace": (popular_statements, shift2),
}


class SplitAttention(nn.Module):
    def __init__(self, c: int, width: int) -> None:
        super().__init__()
        self.mlp1 = nn.Linear(c, width, bias=False)
        self.mlp2 = nn.Linear(width, 3 * c, bias=False)

    def forward(self, x_all: Tensor) -> Tensor:
        b, k, h, w, c = x_all.shape
        x_all = x_all.reshape(b, k, -1, c)
        a = torch.sum(torch.sum(x_all, 1), 1)
        hat_a = self.mlp2(nn.functional.gelu(self.mlp1(a))).reshape(b, k, c)
        out = torch.softmax(hat_a, 1).unsqueeze(-2) * x_all
        return torch.sum(out, 1).reshape(b, h, w, c)


class S2Attention(nn.Module):
    def __init__(self, c: int, width: int, moves: Moves) -> None:
        super().__init__()
        self.mlp1, self.mlp2 = nn.Linear(c, 3 * c), nn.Linear(c, c)
        self.split_attention = SplitAttention(c, width)
        self.moves = moves

    def forward(self, x: Tensor) -> Tensor:
        c = x.shape[-1]
        x = self.mlp1(x)
        x1, x2 = self.moves[0](x[..., :c]), self.moves[1](x[..., c : 2 * c])
        out: Tensor = self.mlp2(self.split_attention(torch.stack([x1, x2, x[..., 2 * c :]], 1)))
        return out


class PreNormResidual(nn.Module):
    def __init__(self, c: int, fn: nn.Module) -> None:
        super().__init__()
        self.norm, self.fn = nn.LayerNorm(c), fn

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fn(self.norm(x)) + x
        return out


class Channels(nn.Module):
    """What stands between two permutations: ``model`` on (batch, height, width, channels)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(x.permute(0, 2, 3, 1))
        return out.permute(0, 3, 1, 2)


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def jittor(spec: S2MLPv2Spec, moves: Moves) -> nn.Module:
    def block(c: int, hidden: int, width: int) -> nn.Module:
        mlp = nn.Sequential(nn.Linear(c, hidden), nn.GELU(), nn.Dropout(0), nn.Linear(hidden, c), nn.Dropout(0))
        return nn.Sequential(PreNormResidual(c, S2Attention(c, width, moves)), PreNormResidual(c, mlp))

    stages, before = [], spec.in_channels
    for stage in spec.stages:
        c, kernel = stage.channels, stage.embedding.kernel
        blocks = nn.Sequential(*(block(c, stage.hidden, stage.attention) for _ in range(stage.depth)))
        stages.append(nn.Sequential(nn.Conv2d(before, c, kernel, kernel), Channels(blocks)))
        before = c
    model = nn.Module()
    model.stages, model.mlp_head = nn.Sequential(*stages), nn.Sequential(Mean(), nn.Linear(before, spec.classes))
    model.forward = lambda x: model.mlp_head(model.stages(x))  # type: ignore[method-assign]
    return model


class ModelPBlock(nn.Module):
    def __init__(self, c: int, hidden: int, width: int, moves: Moves) -> None:
        super().__init__()
        self.model_p1 = nn.Sequential(nn.LayerNorm(c), S2Attention(c, width, moves))
        self.model_p2 = nn.Sequential(nn.LayerNorm(c), nn.Linear(c, hidden), nn.GELU(), nn.Linear(hidden, c))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.model_p1(x)
        out: Tensor = x + self.model_p2(x)
        return out


class ModelP(nn.Module):
    """With ``flat`` one stage, whose blocks stand in a Sequential each; else a down-sampling after every stage."""

    def __init__(self, spec: S2MLPv2Spec, moves: Moves, *, flat: bool) -> None:
        super().__init__()
        first, *others = spec.stages
        self.patch_embed = nn.Conv2d(3, first.channels, first.embedding.kernel, first.embedding.stride)
        self.flat, self.depth = flat, len(others)

        def blocks(s: int) -> Iterator[nn.Module]:
            stage = spec.stages[s]
            for _ in range(stage.depth):
                block = ModelPBlock(stage.channels, stage.hidden, stage.attention, moves)
                yield nn.Sequential(block) if flat else block

        if flat:
            self.stages = nn.Sequential(*blocks(0))
        for s, stage in enumerate(others):
            setattr(self, f"stage{s}", nn.Sequential(*blocks(s)))
            down = nn.Module()
            down.conv = nn.Conv2d(spec.stages[s].channels, stage.channels, 3, 2, 1)
            self.down_stage = getattr(self, "down_stage", nn.ModuleList()).append(down)
        self.head = nn.Linear(spec.stages[-1].channels, spec.classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x).permute(0, 2, 3, 1)
        if self.flat:
            x = self.stages(x)
        for s in range(self.depth):
            x = self.get_submodule(f"stage{s}")(x).permute(0, 3, 1, 2)
            x = self.get_submodule(f"down_stage.{s}.conv")(x).permute(0, 2, 3, 1)
        out: Tensor = self.head(x.mean((1, 2)))
        return out


CODE: dict[str, tuple[Callable[[S2MLPv2Spec, Moves], nn.Module], S2MLPv2Spec]] = {
    "jittor-mlp-v2": (jittor, v2_spec()),
    "model-p-v2": (lambda spec, moves: ModelP(spec, moves, flat=False), v2_spec("pyramid")),
    "model-p-flat-v2": (lambda spec, moves: ModelP(spec, moves, flat=True), v2_spec("one stage")),
}


def images(size: Size, count: int = 2) -> Tensor:
    return torch.from_numpy(np.random.default_rng(3).standard_normal((count, 3, *size)))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # the in-place statements race on several
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("semantics", MOVES)
@pytest.mark.parametrize("layout", CODE)
def test_the_logits_of_public_code_are_those_of_the_reference(
    layout: str, semantics: Semantics, tmp_path: Path
) -> None:
    make, spec = CODE[layout]
    torch.manual_seed(1)
    model = make(spec, MOVES[semantics]).requires_grad_(False)
    for parameter in model.parameters():  # or all norms would be the same
        parameter.add_(0.2 * torch.randn_like(parameter))
    torch.save(model.state_dict(), tmp_path / "model.pt")
    found = load_checkpoint(tmp_path / "model.pt", image_size=spec.image_size, semantics=semantics)
    assert found.layout.name == layout
    assert found.spec == replace(spec.with_semantics(semantics), biases=found.spec.biases)
    assert found.spec.biases == set(LAYERS) - {"stem_norm", "norm"}  # all that there are
    with torch.inference_mode():
        expected = model.double()(images(spec.image_size)).numpy()
    got = logits(family_of(found.spec).build(found.spec, found.weights), images(spec.image_size))
    assert compare(got.numpy(), expected).relative_l2 < 1e-13


def test_every_layer_of_a_block_has_a_name_in_every_layout() -> None:
    layouts = [layout for layout in builtin_layouts() if layout.family == "s2mlp_v2"]
    assert {layout.name for layout in layouts} == {*CODE, "canonical-v2"}
    for layout in layouts:
        layers = {name.rsplit(".", 1)[-1] for name in layout.keys}
        assert {"embedding", "norm1", "fc1", "attention1", "attention2", "fc2", "norm2", "fc3", "fc4", "fc"} <= layers


# Near misses


def refusal(tmp_path: Path, change: Callable[[dict[str, Tensor]], object], spec: S2MLPv2Spec | None = None) -> str:
    spec = spec or v2_spec()
    state = jittor(spec, MOVES["paper"]).state_dict()
    change(state)
    torch.save(state, tmp_path / "model.pt")
    with pytest.raises(LayoutError) as caught:
        load_checkpoint(tmp_path / "model.pt", image_size=spec.image_size)
    return str(caught.value)


P1 = "stages.0.1.model.1.0.fn"


def test_a_checkpoint_without_its_attention_is_refused_by_the_key_that_is_missing(tmp_path: Path) -> None:
    def drop(state: dict[str, Tensor]) -> None:
        for key in [key for key in state if "split_attention" in key]:
            del state[key]

    message = refusal(tmp_path, drop)
    assert "layout jittor-mlp-v2) lacks stages.0.1.model.0.0.fn.split_attention.mlp1.weight" in message


def test_biases_inside_the_attention_are_refused_by_name(tmp_path: Path) -> None:
    key = f"{P1}.split_attention.mlp2.bias"
    message = refusal(tmp_path, lambda state: state.update({key: torch.zeros(24)}))
    assert f"{key} [24] is a bias inside the split attention" in message


@pytest.mark.parametrize(("rows", "parts"), [(16, "2 parts"), (32, "4 parts"), (25, "no whole number of parts")])
def test_another_number_of_parts_is_refused(rows: int, parts: str, tmp_path: Path) -> None:
    def change(state: dict[str, Tensor]) -> None:
        state[f"{P1}.mlp1.weight"], state[f"{P1}.mlp1.bias"] = torch.zeros(rows, 8), torch.zeros(rows)

    message = refusal(tmp_path, change)
    assert f"{P1}.mlp1.weight [{rows}, 8] gives {parts} of 8 channels, and S²-MLPv2 has 3" in message


def test_blocks_of_a_stage_that_differ_in_width_are_refused(tmp_path: Path) -> None:
    def change(state: dict[str, Tensor]) -> None:
        state[f"{P1}.split_attention.mlp1.weight"] = torch.zeros(4, 8)
        state[f"{P1}.split_attention.mlp2.weight"] = torch.zeros(24, 4)

    message = refusal(tmp_path, change)
    assert "form no S²-MLPv2" in message and "mlp1.weight has shape [4, 8], expected [5, 8]" in message


def test_another_networks_permutator_in_place_of_the_shift_is_refused_by_name(tmp_path: Path) -> None:
    key = "stages.0.1.model.0.0.fn.reweight.fc1.weight"
    message = refusal(tmp_path, lambda state: state.update({key: torch.zeros(2, 8)}))
    assert "Nearest is jittor-mlp-v2, which explains" in message and f"it has no place for {key} [2, 8]" in message


# The graph


SPECS = {
    "two stages": v2_spec(),
    "odd channels, stem norms, norm after the mean": v2_spec("odd"),
    "in place": v2_spec().with_semantics("inplace"),
    "eight directions": v2_spec().with_shift(Shift(DIRECTIONS["8"])),
    "zero border": v2_spec().with_shift(Shift(border="zero")),
    "wrapped border, horizontal": v2_spec().with_shift(Shift(DIRECTIONS["horizontal"], border="wrap")),
    "no biases": replace(v2_spec("one stage"), biases=frozenset()),
}


def lowered(spec: S2MLPv2Spec, lowering: str, axes: Axes) -> ir.Model:
    return lower(spec, weights_of(random_model(spec)), LOWERINGS[lowering], axes).model


def exact(spec: S2MLPv2Spec, *, dynamic: bool) -> list[str]:
    return [n for n, low in LOWERINGS.items() if not any(low.refusal(s, dynamic_size=dynamic) for s in spec.shifts)]


CASES = [(name, low, dyn) for name, spec in SPECS.items() for dyn in (False, True) for low in exact(spec, dynamic=dyn)]


@pytest.mark.parametrize(("name", "lowering", "dynamic"), CASES)
def test_the_graph_computes_what_the_reference_computes(name: str, lowering: str, dynamic: bool) -> None:
    spec = SPECS[name]
    model = lowered(spec, lowering, Axes(None, None if dynamic else spec.image_size))
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    height, width = spec.image_size
    for size in [(height, width), (height + 16, width + 32)][: 2 if dynamic else 1]:
        x = images(size, 3)
        expected = logits(random_model(spec), x).numpy()
        assert compare(run_graph(model, input=x.float().numpy()), expected).relative_l2 < 1e-6


def test_gather_is_exact_for_every_shift_but_a_zero_border_and_slice_for_all() -> None:
    assert {n for n, low, dyn in CASES if low == "gather"} == SPECS.keys() - {"zero border"}
    assert {n for n, low, dyn in CASES if low == "slice" and dyn} == SPECS.keys()


def test_a_block_is_few_operators_and_moves_all_parts_with_one_lookup() -> None:
    spec = v2_spec("one stage")
    counts = []
    for depth in (1, 3):
        deeper = replace(spec, stages=(replace(spec.stages[0], depth=depth),))
        counts.append(Counter(n.op_type for n in lowered(deeper, "gather", Axes(None, spec.image_size)).graph))
    block = {op: (counts[1][op] - counts[0][op]) // 2 for op in counts[1] if counts[1][op] != counts[0][op]}
    assert block == {
        "LayerNormalization": 2,
        "Gemm": 6,
        "Gelu": 2,
        "Gather": 1,
        "Softmax": 1,
        "Mul": 1,
        "Add": 2,
        "ReduceSum": 4,
        "Reshape": 8,
    }


def test_layers_are_named_alike_in_the_module_the_graph_and_the_spec() -> None:
    spec = v2_spec()
    model, graph = random_model(spec), lowered(spec, "gather", Axes(1, spec.image_size)).graph
    assert {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()} == spec.parameter_shapes()
    nodes = {str(node.name) for node in graph}
    assert [name for name, _ in activations(model, images(spec.image_size))] == list(spec.layer_maps())
    layers = [*family_of(spec).block_layers(spec), *family_of(spec).end_layers(spec)]
    assert len(layers) == 4 * spec.depth + len(spec.stages) + 1
    assert {layer.name for layer in layers} | set(spec.layer_maps()) <= nodes
    assert {layer.activation for layer in layers} <= nodes | {"input"}
    assert {product.name for product in spec.products()} <= nodes


# Numbers and JSON


def test_a_spec_is_the_same_after_a_round_trip_through_json_which_names_the_family() -> None:
    for spec in SPECS.values():
        content = spec.to_json()
        assert next(iter(content.items())) == ("family", "s2mlp_v2")
        assert read_spec(json.loads(json.dumps(content))) == spec


def test_parameters_and_multiply_adds_are_the_papers() -> None:
    """Table 1 of the paper, with ĉ = c / 4: 25 M and 6.9 G, 55 M and 16.3 G."""
    small, medium = PRESETS["small/7"], PRESETS["medium/7"]
    assert (round(small.parameters() / 1e6, 1), round(medium.parameters() / 1e6, 1)) == (25.1, 55.3)
    assert (round(small.macs() / 1e9, 1), round(medium.macs() / 1e9, 1)) == (6.9, 16.3)
    public = two_stages((192, 384), (4, 14), attention=(192, 384))
    assert round(public.parameters() / 1e6, 2) == 31.75


def test_a_blocks_counts_are_those_of_the_formulas() -> None:
    spec = replace(v2_spec("one stage"), biases=frozenset(LAYERS))
    stage, (size,) = spec.stages[0], spec.map_sizes(spec.image_size)
    c, attention, n = stage.channels, stage.attention, prod(size)
    assert stage.hidden == 3 * c
    deeper = replace(spec, stages=(replace(stage, depth=stage.depth + 1),))
    assert deeper.parameters() - spec.parameters() == 10 * c * c + 4 * c * attention + 12 * c
    assert deeper.macs() - spec.macs() == n * 10 * c * c + 4 * c * attention


def test_the_shift_of_all_parts_puts_every_group_where_its_part_does() -> None:
    for c in (4, 7, 13, 22):
        spec = v2_spec().with_shift(Shift(DIRECTIONS["4"]))
        groups = spec.shift_of_all_parts.groups(3 * c)
        expected = [
            (p * c + g.start, p * c + g.stop, g.offset if part else (0, 0))
            for p, part in enumerate(spec.parts)
            for g in spec.shift.groups(c)
            for g in [(part or spec.shift).groups(c)[spec.shift.groups(c).index(g)]]
        ]
        assert [(g.start, g.stop, g.offset) for g in groups] == expected
