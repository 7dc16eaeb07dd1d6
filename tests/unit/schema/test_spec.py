"""The spec: sizes, counts and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from helpers.support import pyramid_spec, small_spec
from s2mlp_deploy.errors import SpecError
from s2mlp_deploy.families.s2mlp.reference import S2MLP
from s2mlp_deploy.families.s2mlp.spec import PRESETS, S2MLPSpec, Stage
from s2mlp_deploy.schema.shift import DIRECTIONS, Offset, Shift, direction_name, parse_directions
from s2mlp_deploy.schema.spec import Embedding


def test_the_presets_have_the_papers_size_and_cost() -> None:
    # The paper reports 14.0 B and 10.5 B FLOPs, counting a multiply-add as one.
    assert round(PRESETS["wide"].parameters() / 1e6, 1) == 72.2
    assert round(PRESETS["deep"].parameters() / 1e6, 1) == 53.9
    assert round(PRESETS["wide"].macs() / 1e9, 1) == 14.0
    assert round(PRESETS["deep"].macs() / 1e9, 1) == 10.5


def test_parameters_of_a_block_follow_the_formula() -> None:
    c, hidden = 96, 288
    one, two = (small_spec(channels=c, depth=d).parameters() for d in (1, 2))
    assert two - one == c * (2 * c + 2 * hidden) + 3 * c + hidden + 4 * c


@pytest.mark.parametrize("spec", [small_spec(), pyramid_spec()], ids=["one stage", "pyramid"])
def test_parameter_names_and_shapes_are_those_of_the_module(spec: S2MLPSpec) -> None:
    state = {name: tuple(tensor.shape) for name, tensor in S2MLP(spec).state_dict().items()}
    assert spec.parameter_shapes() == state
    assert list(spec.parameter_shapes()) == list(state)


def test_map_sizes_follow_the_stages_on_both_axes() -> None:
    assert pyramid_spec().map_sizes((36, 28)) == ((9, 7), (5, 4), (3, 2))


def test_cost_grows_in_proportion_to_the_number_of_positions() -> None:
    spec = PRESETS["deep"]
    head = spec.stages[-1].channels * spec.classes
    assert spec.macs((448, 448)) - head == 4 * (spec.macs((224, 224)) - head)


@pytest.mark.parametrize(
    ("size", "message"),
    [((3, 28), "smaller than the 4x4 patch"), ((20, 30), r"20x30 is not a multiple of the 4x4 patch")],
)
def test_image_sizes_that_the_patch_does_not_fit_are_refused(size: tuple[int, int], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        small_spec(image_size=size)


def test_too_few_channels_for_the_groups_are_refused() -> None:
    with pytest.raises(SpecError, match=r"stage 0 has 6 channels, too few to split into the 8 groups"):
        small_spec(channels=6, shift=Shift(DIRECTIONS["8"]))


def test_a_spec_needs_stages_and_known_layers_and_a_shift_needs_offsets_and_known_semantics() -> None:
    with pytest.raises(SpecError, match="at least one stage"):
        S2MLPSpec((), classes=3)
    with pytest.raises(SpecError, match="unknown layers"):
        S2MLPSpec((Stage(Embedding((4, 4), (4, 4)), 8, 8, 1),), classes=3, image_size=(8, 8), biases=frozenset({"fc9"}))
    with pytest.raises(SpecError, match="at least one offset"):
        Shift(())
    with pytest.raises(SpecError, match="unknown border 'reflect'"):
        Shift(border="reflect")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match=r"expected head\.norm"):
        replace(small_spec(), norm_after_mean=True)
    with pytest.raises(SpecError, match="unknown shift semantics"):
        Shift(semantics="roll")  # type: ignore[arg-type]


def test_direction_sets_have_names_and_others_show_their_offsets() -> None:
    assert Shift(DIRECTIONS["8"]).directions == "8"
    assert Shift(((2, 0), (0, -1), (0, 0), (1, -13))).directions == "h+2,w-,0,h+w-13"


@pytest.mark.parametrize("offsets", [*DIRECTIONS.values(), ((2, 0), (0, -1), (0, 0), (1, -13)), ((-3, 999),)])
def test_directions_are_read_as_they_are_shown(offsets: tuple[Offset, ...]) -> None:
    assert parse_directions(Shift(offsets).directions) == offsets
    assert parse_directions(", ".join(map(direction_name, offsets))) == offsets


@pytest.mark.parametrize("text", ["", "5", "h", "h+,", "w+h-", "h+0", "h+1000", "+h", "h+ w-", "(1,0)"])
def test_what_is_no_direction_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a direction: expected 4, 8, horizontal, vertical, or"):
        parse_directions(text)
