"""MLP-Mixer's layouts: the names of timm, lucidrains and Jittor-MLP lead to their own numbers, and near misses are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from helpers.mixers import SIZE, jittor_mixer, lucidrains_mixer, randomised, timm, timm_mixer
from s2mlp_deploy.checkpoint.load import Checkpoint, checkpoint_warnings, load_checkpoint
from s2mlp_deploy.errors import LayoutError, UsageError
from s2mlp_deploy.families.mixer.spec import MixerSpec
from s2mlp_deploy.families.recognition import recognise
from s2mlp_deploy.families.reference import logits
from s2mlp_deploy.families.registry import builtin_layouts, family_of, find_family, find_layout
from s2mlp_deploy.schema.size import Size

MODELS: dict[str, Callable[[], nn.Module]] = {
    "timm-mixer": timm_mixer,
    "lucidrains-mixer": lucidrains_mixer,
    "jittor-mixer": jittor_mixer,
}


def load(place: Path, state: dict[str, Tensor], size: Size | None = SIZE, layout: str | None = None) -> Checkpoint:
    torch.save(state, place / "model.pt")
    return load_checkpoint(place / "model.pt", image_size=size, layout=find_layout(layout) if layout else None)


def refusal(place: Path, state: dict[str, Tensor], size: Size | None = SIZE, layout: str | None = None) -> str:
    with pytest.raises(LayoutError) as raised:
        load(place, state, size, layout)
    return str(raised.value)


def custom(place: Path, content: str) -> str:
    (place / "mine.toml").write_text(content, "utf-8")
    return str(place / "mine.toml")


@pytest.mark.parametrize("name", MODELS)
def test_the_logits_of_public_code_are_those_of_the_reference(tmp_path: Path, name: str) -> None:
    model = MODELS[name]().double()
    found = load(tmp_path, model.state_dict())
    assert found.layout.name == name and found.spec.image_size == SIZE
    images = torch.rand(3, 3, *SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = model(images)
    assert expected.std() > 0.1
    actual = logits(family_of(found.spec).build(found.spec, found.weights).double(), images)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


def test_every_published_mixer_of_timm_has_the_parameters_that_its_spec_counts(tmp_path: Path) -> None:
    """timm's entry points, with random weights, on the meta device: shapes alone."""
    models = timm().models
    names = models.list_models("mixer_*")
    assert {"mixer_s32_224", "mixer_b16_224", "mixer_l16_224"} <= set(names)
    for name in names:
        model = models.create_model(name, pretrained=False, device="meta")
        shapes = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
        match = recognise(shapes, builtin_layouts())
        family = find_family(match.layout.family)
        spec = family.infer_spec(
            match, shapes, image_size=family.default_image_size(match, shapes), shift=match.layout.shift
        )
        assert isinstance(spec, MixerSpec) and spec.image_size == (224, 224) and spec.norm_epsilon == 1e-6, name
        assert spec.parameters() == sum(parameter.numel() for parameter in model.parameters()), name


def test_every_layout_maps_every_layer() -> None:
    found = [layout for layout in builtin_layouts() if layout.family == MixerSpec.family]
    assert {layout.name for layout in found} == {"mixer", *MODELS}
    for layout in found:
        layers = {name.rsplit(".", 1)[-1] for name in layout.keys}
        assert layers == {"embedding", "norm1", "token1", "token2", "norm2", "fc3", "fc4", "norm", "fc"}


@pytest.mark.parametrize("prefix", ["", "module.", "net.model."])
def test_prefixes_are_cut_off(tmp_path: Path, prefix: str) -> None:
    state = {prefix + key: tensor for key, tensor in lucidrains_mixer(blocks=11).state_dict().items()}
    found = load(tmp_path, state)
    assert (found.layout.name, found.prefix, found.spec.depth) == ("lucidrains-mixer", prefix, 11)


@pytest.mark.parametrize(("patch", "channels"), [((4, 4), 3), ((4, 4), 1), ((2, 2), 3)])
def test_the_width_of_a_linear_embedding_shows_square_patches_and_colours(
    tmp_path: Path, patch: Size, channels: int
) -> None:
    model = lucidrains_mixer(patch, channels=channels).double()
    found = load(tmp_path, model.state_dict())
    assert (found.spec.patch, found.spec.in_channels) == (patch, channels)
    images = torch.rand(2, channels, *SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    actual = logits(family_of(found.spec).build(found.spec, found.weights).double(), images)
    torch.testing.assert_close(actual, model(images), rtol=1e-12, atol=1e-12)


def test_oblong_patches_are_stated_in_a_layout_file(tmp_path: Path) -> None:
    model = lucidrains_mixer((2, 4)).double()
    assert "square patches of 3 channels or 1. Say their size under [patch]" in refusal(tmp_path, model.state_dict())
    own = custom(tmp_path, 'extends = "lucidrains-mixer"\n[patch]\nsize = [2, 4]\norder = "channels-last"')
    found = load(tmp_path, model.state_dict(), layout=own)
    assert found.spec.patch == (2, 4)
    (warning,) = checkpoint_warnings(found)
    assert "patches of 2x4 side by side, flattened channels-last" in warning and "shift" not in warning
    images = torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    actual = logits(family_of(found.spec).build(found.spec, found.weights).double(), images)
    torch.testing.assert_close(actual, model(images), rtol=1e-12, atol=1e-12)


def test_the_image_size_follows_from_the_positions(tmp_path: Path) -> None:
    square = timm_mixer(img_size=24).state_dict()
    assert load(tmp_path, square, None).spec.image_size == (24, 24)
    assert load(tmp_path, square, (12, 48)).spec.image_size == (12, 48)
    said = refusal(tmp_path, square, (28, 28))
    assert "an image of 28x28 has 49 patches of 4x4, and the token-mixing weights are for 36" in said
    assert "--image-size" in said
    said = refusal(tmp_path, timm_mixer().state_dict(), None)
    assert "for 35 positions, which no square image has" in said and "a multiple of 4x4" in said


def test_a_shift_cannot_be_stated(tmp_path: Path) -> None:
    torch.save(timm_mixer().state_dict(), tmp_path / "model.pt")
    with pytest.raises(UsageError, match="--shift-semantics: MLP-Mixer has no shift: leave it out"):
        load_checkpoint(tmp_path / "model.pt", image_size=SIZE, semantics="paper")
    with pytest.raises(UsageError, match="--shift-directions"):
        load_checkpoint(tmp_path / "model.pt", image_size=SIZE, offsets=((0, 1),))
    with pytest.raises(LayoutError, match="MLP-Mixer has no shift: leave out border"):
        find_layout(custom(tmp_path, 'extends = "timm-mixer"\nborder = "zero"'))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("resmlp_12_224", "this is a ResMLP"),
        ("gmlp_ti16_224", "this is a gMLP"),
        ("gmixer_12_224", "this is a gMixer"),
    ],
)
def test_timms_other_networks_are_refused_by_name(tmp_path: Path, name: str, reason: str) -> None:
    model = timm().models.create_model(name, pretrained=False, img_size=32, num_classes=5)
    said = refusal(tmp_path, model.state_dict(), None)
    assert reason in said and "not exported" in said and "layout file" not in said


def test_a_norm_behind_the_embedding_is_refused(tmp_path: Path) -> None:
    assert "stem_norm" in refusal(tmp_path, timm_mixer(stem_norm=True).state_dict())


def test_a_network_without_its_classifier_or_a_block_is_refused(tmp_path: Path) -> None:
    state = timm_mixer().state_dict()
    assert "lacks head.weight" in refusal(tmp_path, {k: v for k, v in state.items() if not k.startswith("head.")})
    gap = {k.replace("blocks.1.", "blocks.2."): v for k, v in state.items()}
    assert "lacks blocks.1.norm1.weight" in refusal(tmp_path, gap)
    wider = {**state, "blocks.1.mlp_channels.fc1.weight": torch.zeros(57, 14)}
    said = refusal(tmp_path, wider)
    assert "form no MLP-Mixer: blocks.1.mlp_channels.fc1.weight has shape [57, 14], expected [56, 14]" in said
    unbiased = {k: v for k, v in state.items() if not (k.startswith("blocks") and k.endswith("fc1.bias"))}
    assert "blocks.0.mlp_tokens.fc1.bias is missing" in refusal(tmp_path, unbiased)


def test_a_convolution_in_place_of_a_linear_layer_is_named_with_the_remedy(tmp_path: Path) -> None:
    state = timm_mixer().state_dict()
    state = {k: v[..., None] if "mlp_tokens" in k and k.endswith("weight") else v for k, v in state.items()}
    assert "pointwise_convolutions = true" in refusal(tmp_path, state)
    own = custom(tmp_path, 'extends = "timm-mixer"\npointwise_convolutions = true')
    assert load(tmp_path, state, layout=own).spec == load(tmp_path, timm_mixer().state_dict()).spec


def test_a_layout_file_describes_other_names_and_the_norm_behind_the_mean(tmp_path: Path) -> None:
    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = timm_mixer()

        def forward(self, x: Tensor) -> Tensor:
            x = self.body.blocks(self.body.stem(x)).mean(1)  # type: ignore[operator]
            out: Tensor = self.body.head(self.body.norm(x))  # type: ignore[operator]
            return out

    model = randomised(Late()).double()
    own = custom(tmp_path, 'extends = "timm-mixer"\nnorm_after_mean = true')
    found = load(tmp_path, model.state_dict(), layout=own)
    assert isinstance(found.spec, MixerSpec) and found.spec.norm_after_mean
    images = torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    actual = logits(family_of(found.spec).build(found.spec, found.weights).double(), images)
    torch.testing.assert_close(actual, model(images), rtol=1e-12, atol=1e-12)
