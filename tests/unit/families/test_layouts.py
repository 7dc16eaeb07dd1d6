"""Layouts: every public code base's names lead to its own numbers, and nothing is guessed or left over.

The modules below mirror the structure, the keys and the forward pass of the code that each layout
describes. They share nothing with s2mlp_deploy: where their logits and the reference's agree to the last
digits of float64, the map of names, the geometry and both senses of the shift are right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from helpers.mixers import PreNormResidual
from helpers.popular_shift import popular_statements
from helpers.support import ROOT, random_model, save_checkpoint, small_spec
from s2mlp_deploy.checkpoint.load import load_checkpoint
from s2mlp_deploy.errors import CheckpointError, LayoutError, SpecError
from s2mlp_deploy.families.layouts import Layout
from s2mlp_deploy.families.recognition import recognise
from s2mlp_deploy.families.reference import logits
from s2mlp_deploy.families.registry import builtin_layouts, find_layout
from s2mlp_deploy.families.s2mlp.reference import S2MLP
from s2mlp_deploy.schema.shift import DIRECTIONS, Semantics
from s2mlp_deploy.schema.size import Size

Move = Callable[[Tensor], Tensor]


def shift_as_meant(x: Tensor) -> Tensor:
    """The paper's shift of (batch, height, width, channels): what the public statements were meant to do."""
    y, c = x.clone(), x.shape[-1]
    y[:, 1:, :, : c // 4] = x[:, :-1, :, : c // 4]
    y[:, :-1, :, c // 4 : c // 2] = x[:, 1:, :, c // 4 : c // 2]
    y[:, :, 1:, c // 2 : c * 3 // 4] = x[:, :, :-1, c // 2 : c * 3 // 4]
    y[:, :, :-1, 3 * c // 4 :] = x[:, :, 1:, 3 * c // 4 :]
    return y


SHIFTS: dict[Semantics, Move] = {"paper": shift_as_meant, "inplace": popular_statements}


class SpatialShift(nn.Module):
    def __init__(self, move: Move) -> None:
        super().__init__()
        self.move = move

    def forward(self, x: Tensor) -> Tensor:
        return self.move(x)


class JittorBlocks(nn.Module):
    def __init__(self, dim: int, depth: int, expansion: int, move: Move) -> None:
        super().__init__()
        self.model = nn.Sequential(
            *[
                nn.Sequential(
                    PreNormResidual(
                        dim, nn.Sequential(nn.Linear(dim, dim), nn.GELU(), SpatialShift(move), nn.Linear(dim, dim))
                    ),
                    PreNormResidual(
                        dim,
                        nn.Sequential(
                            nn.Linear(dim, dim * expansion),
                            nn.GELU(),
                            nn.Dropout(0.1),
                            nn.Linear(dim * expansion, dim),
                            nn.Dropout(0.1),
                        ),
                    ),
                )
                for _ in range(depth)
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(x.permute(0, 2, 3, 1))
        return out.permute(0, 3, 1, 2)


class MeanOverPositions(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).mean(2)


class JittorMLP(nn.Module):
    """S2MLPv1 of Jittor-MLP: stages of a patch convolution and blocks, NCHW between them."""

    def __init__(self, move: Move, patches: list[int], dims: list[int], depths: list[int], expansion: int = 3) -> None:
        super().__init__()
        inputs = [3, *dims]
        self.stages = nn.Sequential(
            *[
                nn.Sequential(nn.Conv2d(i, d, p, p), JittorBlocks(d, n, expansion, move))
                for i, d, p, n in zip(inputs, dims, patches, depths, strict=False)
            ]
        )
        self.mlp_head = nn.Sequential(MeanOverPositions(), nn.Linear(dims[-1], 7))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.mlp_head(self.stages(x))
        return out


class ModelPBlock(nn.Module):
    def __init__(self, dim: int, expansion: int, move: Move) -> None:
        super().__init__()
        self.model_p1 = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, dim), nn.GELU(), SpatialShift(move), nn.Linear(dim, dim)
        )
        self.model_p2 = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, dim * expansion), nn.GELU(), nn.Linear(dim * expansion, dim)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.model_p1(x)
        out: Tensor = x + self.model_p2(x)
        return out


class Downsample(nn.Module):
    """Halves the map: a 3×3 convolution of stride 2."""

    def __init__(self, dim: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, out, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x.permute(0, 3, 1, 2))
        return out.permute(0, 2, 3, 1)


class ModelP(nn.Module):
    """The pyramid: stage0, stage1, …, each followed by a down-sampling, the last one too."""

    def __init__(self, move: Move, patch: int, dims: list[int], depths: list[int], expansion: int = 2) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, dims[0], patch, patch)
        self.depths = depths
        for s, (dim, depth) in enumerate(zip(dims, depths, strict=False)):
            self.add_module(f"stage{s}", nn.Sequential(*[ModelPBlock(dim, expansion, move) for _ in range(depth)]))
        self.down_stage = nn.ModuleList(Downsample(a, b) for a, b in pairwise(dims))
        self.head = nn.Linear(dims[-1], 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x).permute(0, 2, 3, 1)
        for s in range(len(self.depths)):
            x = self.down_stage[s](self.get_submodule(f"stage{s}")(x))
        out: Tensor = self.head(x.mean((1, 2)))
        return out


class ModelPFlat(nn.Module):
    """The single-stage sibling: each block in a Sequential of its own."""

    def __init__(self, move: Move, patch: int, dim: int, depth: int, expansion: int = 4) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, dim, patch, patch)
        self.stages = nn.Sequential(*[nn.Sequential(ModelPBlock(dim, expansion, move)) for _ in range(depth)])
        self.head = nn.Linear(dim, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stages(self.patch_embed(x).permute(0, 2, 3, 1))
        out: Tensor = self.head(x.mean((1, 2)))
        return out


class CanonicalBlock(nn.Module):
    def __init__(self, dim: int, hidden: int, move: Move) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.fc1, self.fc2 = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.fc3, self.fc4 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.act, self.move = nn.GELU(), move

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.fc2(self.move(self.act(self.fc1(self.norm1(x)))))
        out: Tensor = x + self.fc4(self.act(self.fc3(self.norm2(x))))
        return out


class Canonical(nn.Module):
    """Two stages, patches that are not square, and a final norm: what only this project's own names allow."""

    def __init__(self, move: Move) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.ModuleDict({"embedding": nn.Conv2d(i, d, p, p), "blocks": nn.Sequential(*blocks)})
            for i, d, p, blocks in (
                (3, 11, (4, 2), [CanonicalBlock(11, 17, move)]),
                (11, 14, (1, 2), [CanonicalBlock(14, 23, move), CanonicalBlock(14, 23, move)]),
            )
        )
        self.head = nn.ModuleDict({"norm": nn.LayerNorm(14), "fc": nn.Linear(14, 5)})

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            x = stage["embedding"](x).permute(0, 2, 3, 1)  # type: ignore[index]
            x = stage["blocks"](x).permute(0, 3, 1, 2)  # type: ignore[index]
        out: Tensor = self.head["fc"](self.head["norm"](x.permute(0, 2, 3, 1)).mean((1, 2)))
        return out


Build = Callable[[Move], nn.Module]

PUBLIC: dict[str, tuple[str, Build, Size]] = {
    "canonical": ("canonical", Canonical, (20, 28)),
    "jittor, one stage": ("jittor-mlp", lambda move: JittorMLP(move, [4], [13], [3]), (20, 28)),
    "jittor, two stages": ("jittor-mlp", lambda move: JittorMLP(move, [4, 2], [10, 15], [1, 2]), (24, 40)),
    "jittor, three stages": ("jittor-mlp", lambda move: JittorMLP(move, [4, 1, 2], [6, 9, 13], [1, 1, 1]), (24, 40)),
    "pyramid": ("model-p", lambda move: ModelP(move, 4, [9, 14, 11], [1, 2]), (36, 20)),
    "pyramid of three": ("model-p", lambda move: ModelP(move, 3, [5, 7, 10, 13], [2, 1, 1]), (57, 33)),
    "flat": ("model-p-flat", lambda move: ModelPFlat(move, 4, 13, 3), (28, 20)),
}


@pytest.fixture
def one_thread() -> Iterator[None]:
    """PyTorch leaves overlapping assignments undefined; on one thread they run in memory order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def public_model(build: Build, move: Move) -> nn.Module:
    """The module in float64 with weights as uneven as training makes them."""
    torch.manual_seed(20210614)
    model = build(move).double().eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(0.2 * torch.randn_like(parameter))
    return model


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("semantics", ["paper", "inplace"])
@pytest.mark.parametrize("name", PUBLIC)
def test_the_logits_of_public_code_are_those_of_the_reference(tmp_path: Path, name: str, semantics: Semantics) -> None:
    layout, build, size = PUBLIC[name]
    model = public_model(build, SHIFTS[semantics])
    images = torch.randn(2, 3, *size, dtype=torch.float64)
    torch.save({"model": model.state_dict()}, tmp_path / "model.pt")
    found = load_checkpoint(tmp_path / "model.pt", image_size=size, semantics=semantics)
    assert found.layout.name == layout
    expected = model(images)
    actual = logits(S2MLP.of(found.spec, found.weights), images)
    assert (actual - expected).norm() <= 1e-12 * expected.norm()


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", PUBLIC)
def test_the_other_semantics_would_be_noticed(tmp_path: Path, name: str) -> None:
    _, build, size = PUBLIC[name]
    model = public_model(build, SHIFTS["inplace"])
    images = torch.randn(2, 3, *size, dtype=torch.float64)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    found = load_checkpoint(tmp_path / "model.pt", image_size=size)
    expected = model(images)
    actual = logits(S2MLP.of(found.spec, found.weights), images)
    assert (actual - expected).norm() > 1e-3 * expected.norm()


def test_the_pyramid_ends_in_a_convolution_without_blocks(tmp_path: Path) -> None:
    _, build, size = PUBLIC["pyramid"]
    torch.save(public_model(build, shift_as_meant).state_dict(), tmp_path / "model.pt")
    spec = load_checkpoint(tmp_path / "model.pt", image_size=size).spec
    assert [(s.channels, s.hidden, s.depth) for s in spec.stages] == [(9, 18, 1), (14, 28, 2), (11, 0, 0)]
    assert [s.embedding.stride for s in spec.stages] == [(4, 4), (2, 2), (2, 2)]
    assert spec.map_sizes(size) == ((9, 5), (5, 3), (3, 2))


# Keys that do not fit


def state() -> dict[str, Tensor]:
    return dict(random_model(small_spec()).state_dict())


def refusal(tmp_path: Path, tensors: dict[str, Any], **options: Any) -> str:
    """What is said about a checkpoint that no layout fits."""
    torch.save(tensors, tmp_path / "model.pt")
    with pytest.raises(LayoutError) as caught:
        load_checkpoint(tmp_path / "model.pt", **options)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'model.pt'}: ")
    assert "\n" not in message
    return message


def jittor_state() -> dict[str, Tensor]:
    return dict(JittorMLP(shift_as_meant, [4], [13], [2]).state_dict())


@pytest.mark.parametrize("key", ["stages.0.blocks.1.fc2.weight", "stages.0.blocks.0.norm1.weight", "head.fc.weight"])
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    tensors = state()
    del tensors[key]
    assert key in refusal(tmp_path, tensors)


@pytest.mark.parametrize(
    "key",
    ["stages.0.0.weight", "stages.0.1.model.1.0.fn.3.bias", "stages.0.1.model.0.1.fn.0.weight", "mlp_head.1.weight"],
)
def test_a_missing_key_is_named_as_the_checkpoint_would_spell_it(tmp_path: Path, key: str) -> None:
    tensors = jittor_state()
    del tensors[key]
    message = refusal(tmp_path, tensors)
    assert key in message and "jittor-mlp" in message


def test_the_bias_of_one_block_only_is_noticed(tmp_path: Path) -> None:
    tensors = {k: v for k, v in state().items() if not k.endswith("fc1.bias") or ".1." in k}
    assert "stages.0.blocks.0.fc1.bias is missing" in refusal(tmp_path, tensors)


def test_keys_left_over_are_named_with_their_shapes_and_the_nearest_layout(tmp_path: Path) -> None:
    message = refusal(tmp_path, jittor_state() | {"aux.weight": torch.zeros(3, 5), "pos_embed": torch.zeros(1, 35, 13)})
    assert "aux.weight [3, 5], pos_embed [1, 35, 13]" in message
    assert "jittor-mlp" in message and "--layout FILE.toml" in message


def test_many_keys_left_over_are_counted(tmp_path: Path) -> None:
    message = refusal(tmp_path, state() | {f"extra.{i}": torch.zeros(1) for i in range(9)})
    assert "extra.5 [1], and 3 more" in message and "extra.6" not in message


@pytest.mark.parametrize(
    ("key", "shape", "expected"),
    [
        ("stages.0.blocks.1.fc2.weight", (13, 12), "[13, 13]"),
        ("stages.0.blocks.1.fc3.weight", (38, 13), "[39, 13]"),
        ("stages.0.blocks.0.norm2.bias", (14,), "[13]"),
        ("stages.0.blocks.0.fc1.weight", (13, 13, 1, 1), "[13, 13]"),
        ("stages.0.embedding.bias", (12,), "[13]"),
        ("stages.0.embedding.weight", (13, 48), "a convolution [out, in, height, width]"),
        ("stages.0.blocks.0.fc3.weight", (39,), "a linear layer [out, in]"),
        ("head.fc.weight", (7, 13, 1), "a linear layer [out, in]"),
        ("head.fc.weight", (0, 13), "a linear layer [out, in]"),
        ("head.fc.weight", (), "a linear layer [out, in]"),
    ],
)
def test_a_misshapen_weight_is_named_with_both_shapes(
    tmp_path: Path, key: str, shape: tuple[int, ...], expected: str
) -> None:
    message = refusal(tmp_path, state() | {key: torch.zeros(shape)})
    assert f"{key} has shape {list(shape)}, expected" in message and expected in message


def test_a_misshapen_weight_is_named_as_in_the_checkpoint(tmp_path: Path) -> None:
    message = refusal(tmp_path, jittor_state() | {"stages.0.0.weight": torch.zeros(13, 48)})
    assert "stages.0.0.weight has shape [13, 48]" in message


def test_a_gap_in_the_blocks_is_noticed(tmp_path: Path) -> None:
    tensors = {k.replace("blocks.1.", "blocks.2."): v for k, v in state().items()}
    assert "lacks stages.0.blocks.1.norm1.weight" in refusal(tmp_path, tensors)


def test_a_gap_in_the_stages_is_noticed(tmp_path: Path) -> None:
    stages = {k.replace("stages.0.", "stages.2."): v for k, v in state().items() if "stages" in k}
    assert "stages.1.embedding.weight" in refusal(tmp_path, state() | stages)


@pytest.mark.parametrize("index", ["01", "-1", "1a", "12345", "²"])
def test_an_index_is_a_plain_number(tmp_path: Path, index: str) -> None:
    key = f"stages.0.blocks.{index}.fc1.weight"
    assert f"no place for {key}" in refusal(tmp_path, state() | {key: torch.zeros(13, 13)})


def test_another_model_is_not_taken_for_this_one(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 2))
    message = refusal(tmp_path, dict(model.state_dict()))
    assert "none of the 9 keys (0.weight, 0.bias, 1.weight," in message and "is this one of their networks?" in message
    assert "s2mlp-repair, which takes any network" in message


def test_the_post_norm_variant_is_refused_with_the_reason(tmp_path: Path) -> None:
    def channel_mlp(hidden: int, last: int) -> nn.ModuleDict:
        return nn.ModuleDict(
            {"0": nn.Conv2d(8, hidden, 1), str(last - 1): nn.Conv2d(hidden, 8, 1), str(last): nn.LayerNorm(8)}
        )

    model = nn.ModuleDict(
        {
            "patch_emb": nn.ModuleDict({"proj": nn.Conv2d(3, 8, 4, 4)}),
            "stages": nn.ModuleList(
                nn.ModuleDict({"channel_mlp1": channel_mlp(8, 4), "channel_mlp2": channel_mlp(24, 3)}) for _ in range(2)
            ),
            "mlp_head": nn.ModuleDict({"1": nn.Linear(8, 5)}),
        }
    )
    message = refusal(tmp_path, dict(model.state_dict()))
    assert "post-norm" in message and "refused" in message and "moves values along channels" in message
    assert "s2mlp-repair" in message


@pytest.mark.parametrize(("directions", "channels"), [("4", 3), ("8", 7), ("horizontal", 1)])
def test_too_few_channels_for_the_shift_are_refused(tmp_path: Path, directions: str, channels: int) -> None:
    model = JittorMLP(shift_as_meant, [4], [channels], [2])
    torch.save(model.state_dict(), tmp_path / "model.pt")
    groups = len(DIRECTIONS[directions])
    with pytest.raises(
        SpecError, match=rf"model\.pt: .*{channels} channels?, too few to split into the {groups} groups"
    ):
        load_checkpoint(tmp_path / "model.pt", image_size=(20, 28), offsets=DIRECTIONS[directions])


@pytest.mark.parametrize(
    ("backbone", "head", "lines"),
    [
        ("", "mlp_head.1.1", ('extends = "jittor-mlp"',)),
        ("backbone.", "head.fc", ('extends = "jittor-mlp"', 'prefix = "backbone"')),
        ("module.model.encoder.", "module.fc", ('extends = "jittor-mlp"', 'prefix = "model.encoder"')),
    ],
)
def test_a_classifier_of_another_name_is_refused_with_the_layout_file_that_says_so(
    tmp_path: Path, backbone: str, head: str, lines: tuple[str, ...]
) -> None:
    state = jittor_state()
    renamed = {
        (f"{head}.{key.rsplit('.', 1)[1]}" if key.startswith("mlp_head") else backbone + key): tensor
        for key, tensor in state.items()
    }
    message = refusal(tmp_path, renamed)
    plain = head.removeprefix("module.")
    assert f'{" and ".join(lines)}, and under [keys] "head.fc" = "{plain}"' in message
    (tmp_path / "mine.toml").write_text("\n".join([*lines, "[keys]", f'"head.fc" = "{plain}"']), "utf-8")
    found = load_checkpoint(tmp_path / "model.pt", layout=find_layout(str(tmp_path / "mine.toml")), image_size=(20, 28))
    assert torch.equal(found.weights["head.fc.weight"], state["mlp_head.1.weight"])


def test_a_prefix_is_the_name_of_a_module(tmp_path: Path) -> None:
    for prefix in ('"a."', '""', '"{b}"', "3"):
        (tmp_path / "mine.toml").write_text(f'extends = "jittor-mlp"\nprefix = {prefix}\n', "utf-8")
        with pytest.raises(LayoutError, match="is not the name of a module"):
            find_layout(str(tmp_path / "mine.toml"))


@pytest.mark.parametrize(
    ("key", "remedy"),
    [
        ("stages.0.1.model.0.0.fn.0.weight_orig", "prune.remove"),
        ("stages.0.1.model.0.0.fn.0.lora_A.default.weight", "merge_and_unload"),
        ("stages.0.1.model.0.0.fn.0.parametrizations.weight.original0", "remove_parametrizations"),
        ("stages.0.1.model.0.0.fn.0.weight_g", "remove_weight_norm"),
    ],
)
def test_weights_that_are_kept_in_another_way_are_refused_with_how_to_make_them_plain(
    tmp_path: Path, key: str, remedy: str
) -> None:
    message = refusal(tmp_path, jittor_state() | {key: torch.zeros(13, 13)})
    assert f"no layout explains {key}: " in message and remedy in message


def test_quantized_weights_are_refused_with_what_to_export(tmp_path: Path) -> None:
    packed = {"stages.0.1.model.0.0.fn.0._packed_params.dtype": torch.qint8, "stages.0.0.weight": torch.zeros(3)}
    torch.save(packed, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=r"quantized and packed .* from before quantization"):
        load_checkpoint(tmp_path / "model.pt")


# More than one layout


def test_two_layouts_that_both_fit_are_named(tmp_path: Path) -> None:
    ours = find_layout("jittor-mlp")
    twin = ours.model_copy(update={"name": "its-twin"})
    shapes = {key: tuple(tensor.shape) for key, tensor in jittor_state().items()}
    with pytest.raises(LayoutError, match=r"more than one layout, jittor-mlp and its-twin: .* --layout NAME"):
        recognise(shapes, [*builtin_layouts(), twin])


def test_a_pyramid_without_blocks_fits_two_layouts_until_one_is_named(tmp_path: Path) -> None:
    tensors = dict(ModelPFlat(shift_as_meant, 4, 13, 0).state_dict())
    assert "model-p-flat and model-p" in refusal(tmp_path, tensors)
    found = load_checkpoint(tmp_path / "model.pt", layout=find_layout("model-p"))
    assert found.spec.depth == 0


# Layout files

CUSTOM = """
name = "mine"
source = "my own code"
shift_semantics = "inplace"
norm_epsilon = 1e-3

[keys]
"stages.0.embedding" = "embed"
"stages.0.blocks.{b}.norm1" = "trunk.{b}.shift_mlp.norm"
"stages.0.blocks.{b}.fc1" = "trunk.{b}.shift_mlp.up"
"stages.0.blocks.{b}.fc2" = "trunk.{b}.shift_mlp.down"
"stages.0.blocks.{b}.norm2" = "trunk.{b}.mlp.norm"
"stages.0.blocks.{b}.fc3" = "trunk.{b}.mlp.up"
"stages.0.blocks.{b}.fc4" = "trunk.{b}.mlp.down"
"head.norm" = "norm"
"head.fc" = "classifier"
"""


def custom_state() -> dict[str, Tensor]:
    renames = {
        "stages.0.embedding": "embed",
        "stages.0.blocks": "trunk",
        "norm1": "shift_mlp.norm",
        "fc1": "shift_mlp.up",
        "fc2": "shift_mlp.down",
        "norm2": "mlp.norm",
        "fc3": "mlp.up",
        "fc4": "mlp.down",
        "head.fc": "classifier",
    }
    renamed = {}
    for key, tensor in state().items():
        for old, new in renames.items():
            key = key.replace(old, new)
        renamed[key] = tensor
    return renamed


def test_a_layout_file_describes_other_names(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(CUSTOM, "utf-8")
    assert "none of the" in refusal(tmp_path, custom_state())
    found = load_checkpoint(tmp_path / "model.pt", layout=find_layout(str(file)), image_size=(20, 28))
    assert (found.layout.name, found.layout.shift_semantics) == ("mine", "inplace")
    assert found.spec.norm_epsilon == 1e-3 and not found.spec.final_norm
    assert all(torch.equal(found.weights[name], tensor) for name, tensor in state().items())


def test_a_layout_file_says_which_tensors_are_no_weights(tmp_path: Path) -> None:
    extras = {"aux.head.weight": torch.zeros(3, 5), "pos_embed": torch.zeros(1, 35, 13)}
    file = tmp_path / "mine.toml"
    file.write_text(CUSTOM.replace("norm_epsilon", 'ignore = ["aux.*", "pos_embed"]\nnorm_epsilon'), "utf-8")
    torch.save({f"net.{key}": tensor for key, tensor in (custom_state() | extras).items()}, tmp_path / "model.pt")
    found = load_checkpoint(tmp_path / "model.pt", layout=find_layout(str(file)), image_size=(20, 28))
    assert all(torch.equal(found.weights[name], tensor) for name, tensor in state().items())
    assert [(item.key, item.why) for item in found.left_out] == [
        (f"net.{key}", "ignored by the layout") for key in extras
    ]
    assert "no place for other [1]" in refusal(
        tmp_path, custom_state() | {"other": torch.zeros(1)}, layout=find_layout(str(file))
    )


def test_what_a_layout_explains_is_not_ignored(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(CUSTOM.replace("norm_epsilon", 'ignore = ["trunk.*"]\nnorm_epsilon'), "utf-8")
    torch.save(custom_state(), tmp_path / "model.pt")
    found = load_checkpoint(tmp_path / "model.pt", layout=find_layout(str(file)), image_size=(20, 28))
    assert found.spec.depth == 2 and found.left_out == ()


def test_a_layout_file_extends_a_built_in_one(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('name = "mine"\nextends = "jittor-mlp"\nignore = ["aux.*"]\n[keys]\n"head.fc" = "top"\n', "utf-8")
    built_in, layout = find_layout("jittor-mlp"), find_layout(str(file))
    assert layout == built_in.model_copy(
        update={"name": "mine", "ignore": ("aux.*",), "keys": {**built_in.keys, "head.fc": "top"}}
    )
    tensors = {key.replace("mlp_head.1", "top"): tensor for key, tensor in jittor_state().items()}
    torch.save(tensors | {"aux.weight": torch.zeros(3)}, tmp_path / "model.pt")
    assert [item.key for item in load_checkpoint(tmp_path / "model.pt", layout=layout).left_out] == ["aux.weight"]


def test_a_layout_asked_for_by_name_is_the_only_one_tried(tmp_path: Path) -> None:
    message = refusal(tmp_path, jittor_state(), layout=find_layout("canonical"))
    assert "(canonical)" in message or "Nearest is canonical" in message


def test_a_key_missing_under_names_with_braces_is_named(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(CUSTOM.replace('"head.fc" = "classifier"', '"head.fc" = "class{ifier}"'), "utf-8")
    tensors = {key.replace("classifier", "class{ifier}"): tensor for key, tensor in custom_state().items()}
    del tensors["class{ifier}.bias"], tensors["class{ifier}.weight"]
    assert "lacks class{ifier}.weight" in refusal(tmp_path, tensors, layout=find_layout(str(file)))


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda t: t + "oops", "not valid TOML"),
        (lambda t: t.replace('name = "mine"', 'name = "mine'), "line 2"),
        (lambda t: t + '"head.fc" = "twice"\n', "not valid TOML"),
        (lambda t: t.replace('name = "mine"', ""), "name: Field required"),
        (lambda t: t.replace('name = "mine"', "name = 3"), "name: "),
        (lambda t: t.replace("norm_epsilon", "epsilon"), "epsilon: Extra inputs"),
        (lambda t: t.replace("1e-3", "0"), "norm_epsilon: "),
        (lambda t: t.replace('"inplace"', '"zeros"'), "shift_semantics: "),
        (lambda t: t.replace("[keys]", "[patch]\nstride = 0\n[keys]"), "patch.stride"),
        (lambda t: t.replace("[keys]", "[downsampling]\npadding = -1\n[keys]"), "downsampling.padding"),
        (lambda t: t[: t.index("[keys]")], "keys: Field required"),
        (lambda t: t[: t.index('"stages')], "keys: "),
        (lambda t: t.replace("fc4", "fc5"), "'stages.0.blocks.{b}.fc5' is not a layer of the canonical model"),
        (lambda t: t.replace("trunk.{b}.mlp.up", "trunk.mlp.up"), "must use the same variables"),
        (lambda t: t.replace("trunk.{b}.mlp.up", "trunk.{s}.mlp.up"), "must use the same variables"),
        (lambda t: t.replace("trunk.{b}.mlp.up", "trunk.{b+1}.mlp.up"), "belong on the left side"),
        (lambda t: t.replace("mlp.up", "mlp.down"), "stands for two layers"),
        (lambda t: t.replace("norm_epsilon", 'ignore = ["*"]\nnorm_epsilon'), "'*' would leave out whatever is there"),
        (lambda t: t.replace("norm_epsilon", 'ignore = "aux"\nnorm_epsilon'), "ignore: "),
        (
            lambda t: t.replace("norm_epsilon", 'extends = "mine"\nnorm_epsilon'),
            "no layout is called",
        ),
        (lambda t: t.replace("norm_epsilon", "extends = 3\nnorm_epsilon"), "no layout is called"),
        (lambda t: 'keys = 3\nextends = "canonical"\n' + t[: t.index("[keys]")], "keys: "),
    ],
)
def test_a_malformed_layout_file_is_refused_with_the_place(
    tmp_path: Path, change: Callable[[str], str], place: str
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(change(CUSTOM), "utf-8")
    with pytest.raises(LayoutError) as caught:
        find_layout(str(file))
    message = str(caught.value)
    assert message.startswith(str(file)) and place in message and "\n" not in message


def test_a_layout_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_bytes(CUSTOM.replace("my own", "mé").encode("latin-1"))
    with pytest.raises(LayoutError, match=r"mine\.toml is not a text file in UTF-8"):
        find_layout(str(tmp_path / "mine.toml"))


def test_a_layout_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"cannot read the layout file .*mine\.toml: No such file"):
        find_layout(str(tmp_path / "mine.toml"))
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(LayoutError, match=r"cannot read the layout file .*directory"):
        find_layout(str(tmp_path / "folder.toml"))


def test_a_layout_name_that_is_not_known_is_answered_with_those_that_are() -> None:
    names = ", ".join(layout.name for layout in builtin_layouts())
    with pytest.raises(LayoutError, match=rf"no layout is called 'mine': expected one of {names}, or a \.toml file"):
        find_layout("mine")


def test_every_layout_has_a_name_of_its_own_and_maps_every_layer() -> None:
    everyone = builtin_layouts()
    assert len({layout.name for layout in everyone}) == len(everyone)
    found = [layout for layout in everyone if layout.family == "s2mlp"]
    assert [layout.name for layout in found] == ["canonical", "jittor-mlp", "model-p-flat", "model-p", "post-norm"]
    for layout in found:
        layers = {name.rsplit(".", 1)[-1] for name in layout.keys}
        assert {"embedding", "norm1", "fc1", "fc2", "norm2", "fc3", "fc4", "fc"} <= layers
        assert isinstance(find_layout(layout.name), Layout)


def test_no_layout_of_public_code_declares_a_semantics_which_its_code_does_not_show() -> None:
    """It shifts in place, so evidence must decide, and without any an export is warned about."""
    shifting = [layout for layout in builtin_layouts() if layout.family != "mixer"]
    assert {layout.family for layout in shifting} == {"s2mlp", "s2mlp_v2"}
    for layout in shifting:
        own = layout.name.startswith("canonical")
        assert (layout.shift_semantics, layout.code_shifts_in_place) == (("paper", False) if own else (None, True))


def test_the_worked_example_of_the_documentation_works(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "layouts.md").read_text("utf-8")
    (tmp_path / "my.toml").write_text(text.split("```toml\n")[1].split("```")[0], "utf-8")
    layout = find_layout(str(tmp_path / "my.toml"))
    spec = replace(small_spec(), final_norm=True, biases=frozenset({"embedding", "norm1", "norm2", "norm"}))
    names = {
        f"stages.0.blocks.{b}.{part}": f"trunk.{b}.{prefix}"
        for b in range(spec.depth)
        for part, prefix in {
            "norm1": "shift_mlp.norm",
            "fc1": "shift_mlp.up",
            "fc2": "shift_mlp.down",
            "norm2": "mlp.norm",
            "fc3": "mlp.up",
            "fc4": "mlp.down",
        }.items()
    } | {"stages.0.embedding": "embed", "head.norm": "norm", "head.fc": "classifier"}

    def rename(key: str) -> str:
        layer, kind = key.rsplit(".", 1)
        return f"{names[layer]}.{kind}"

    found = load_checkpoint(save_checkpoint(tmp_path / "my.pt", spec, rename=rename), layout=layout)
    assert found.spec == replace(spec, norm_epsilon=1e-6).with_semantics("inplace")
