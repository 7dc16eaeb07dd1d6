"""Structures that keys do not show: found from recorded logits, said in layout files, exported, and warned about without evidence.

The forward pass below is written from the public code bases' habits, and shares nothing with s2mlp_deploy.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from helpers.support import random_model, run, small_spec, with_stem_norms
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.checkpoint.load import checkpoint_warnings, load_checkpoint
from s2mlp_deploy.errors import LayoutError
from s2mlp_deploy.families.reference import activations, logits
from s2mlp_deploy.families.registry import find_layout
from s2mlp_deploy.families.s2mlp.family import S2MLPFamily
from s2mlp_deploy.families.s2mlp.reference import S2MLP
from s2mlp_deploy.families.s2mlp.spec import S2MLPSpec
from s2mlp_deploy.families.staged import structures
from s2mlp_deploy.families.structure import Change, Structure
from s2mlp_deploy.gate import structure_evidence
from s2mlp_deploy.gate.shift_evidence import FITS_RELATIVE_L2
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.shift import Shift
from s2mlp_deploy.schema.spec import Embedding, Spec

pytestmark = pytest.mark.slow  # every structure that it knows is tried

Move = Callable[[Tensor], Tensor]
SPEC = replace(small_spec(channels=16, depth=1), final_norm=True)


def groups(x: Tensor) -> list[Tensor]:
    return list(x.chunk(4, dim=-1))


def height_first(x: Tensor) -> Tensor:
    a, b, c, d = groups(x)
    a[:, 1:], b[:, :-1] = a[:, :-1].clone(), b[:, 1:].clone()
    c[:, :, 1:], d[:, :, :-1] = c[:, :, :-1].clone(), d[:, :, 1:].clone()
    return torch.cat([a, b, c, d], -1)


def width_first(x: Tensor) -> Tensor:
    a, b, c, d = groups(x)
    a[:, :, 1:], b[:, :, :-1] = a[:, :, :-1].clone(), b[:, :, 1:].clone()
    c[:, 1:], d[:, :-1] = c[:, :-1].clone(), d[:, 1:].clone()
    return torch.cat([a, b, c, d], -1)


def width_first_in_place(x: Tensor) -> Tensor:
    """On one thread: the groups that move forward have their border's value everywhere."""
    a, b, c, d = groups(x)
    b[:, :, :-1], d[:, :-1] = b[:, :, 1:].clone(), d[:, 1:].clone()
    return torch.cat([a[:, :, :1].expand_as(a), b, c[:, :1].expand_as(c), d], -1)


def interleaved(x: Tensor) -> Tensor:
    a, b, c, d = groups(x)
    a[:, 1:], c[:, :-1] = a[:, :-1].clone(), c[:, 1:].clone()
    b[:, :, 1:], d[:, :, :-1] = b[:, :, :-1].clone(), d[:, :, 1:].clone()
    return torch.cat([a, b, c, d], -1)


def zeros_come_in(x: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    q = x.shape[-1] // 4
    out[:, 1:, :, :q], out[:, :-1, :, q : 2 * q] = x[:, :-1, :, :q], x[:, 1:, :, q : 2 * q]
    out[:, :, 1:, 2 * q : 3 * q], out[:, :, :-1, 3 * q :] = x[:, :, :-1, 2 * q : 3 * q], x[:, :, 1:, 3 * q :]
    return out


def rolled(x: Tensor) -> Tensor:
    a, b, c, d = groups(x)
    return torch.cat([a.roll(1, 1), b.roll(-1, 1), c.roll(1, 2), d.roll(-1, 2)], -1)


def rms(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * weight + bias


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.layer_norm(x, weight.shape, weight, bias)


@dataclass(frozen=True)
class Code:
    """Somebody's code, as far as it differs."""

    move: Move = height_first
    norm: Callable[[Tensor, Tensor, Tensor], Tensor] = layer_norm
    act: Callable[[Tensor], Tensor] = F.gelu
    norm_after_mean: bool = False
    stride: int = 4
    padding: int = 0

    def logits(self, state: dict[str, Tensor], images: Array) -> Array:
        def fc(x: Tensor, name: str) -> Tensor:
            return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

        def norm(x: Tensor, name: str) -> Tensor:
            return self.norm(x, state[f"{name}.weight"], state[f"{name}.bias"])

        e = "stages.0.embedding"
        x = F.conv2d(torch.from_numpy(images), state[f"{e}.weight"], state[f"{e}.bias"], self.stride, self.padding)
        x = x.permute(0, 2, 3, 1)
        for b in range(SPEC.depth):
            name = f"stages.0.blocks.{b}"
            x = x + fc(self.move(self.act(fc(norm(x, f"{name}.norm1"), f"{name}.fc1"))), f"{name}.fc2")
            x = x + fc(self.act(fc(norm(x, f"{name}.norm2"), f"{name}.fc3")), f"{name}.fc4")
        if self.norm_after_mean:
            return fc(norm(x.mean((1, 2)), "head.norm"), "head.fc").numpy()
        return fc(norm(x, "head.norm").mean((1, 2)), "head.fc").numpy()


def images(count: int = 3, size: tuple[int, int] = (20, 28)) -> Array:
    return np.random.default_rng(1).standard_normal((count, 3, *size), dtype=np.float32)


KEYS = [f"stages.0.blocks.{{b}}.{n}" for n in ("norm1", "fc1", "fc2", "norm2", "fc3", "fc4")]


@dataclass(frozen=True)
class Case:
    """A checkpoint whose keys are those of this project's module, or another layout's, and what its own code gave."""

    checkpoint: Path
    reference: Path
    folder: Path

    @classmethod
    def make(cls, folder: Path, code: Code) -> Case:
        state = random_model(SPEC).state_dict()
        torch.save({"model": state, "img_size": [20, 28], "mean": [0.5] * 3, "std": [0.5] * 3}, folder / "model.pt")
        np.savez(folder / "recorded.npz", input=images(), logits=code.logits(state, images()))
        return cls(folder / "model.pt", folder / "recorded.npz", folder)

    def export(self, *options: object) -> tuple[int, str]:
        ran = run("export", self.checkpoint, "--reference", self.reference, *options, "-o", self.folder / "bundle")
        return ran.code, " ".join(ran.err.split())

    def artifact_logits(self) -> Array:
        session = onnxruntime.InferenceSession(self.folder / "bundle" / "model.onnx")
        return session.run(None, {"input": images()})[0]


BY_OPTIONS = {
    "width first": (Code(width_first), "--shift-directions w+,w-,h+,h- --shift-semantics paper"),
    "width first, in place": (Code(width_first_in_place), "--shift-directions w+,w-,h+,h- --shift-semantics inplace"),
    "interleaved": (Code(interleaved), "--shift-directions h+,w+,h-,w- --shift-semantics paper"),
}
BY_LAYOUT = {
    "zero border": (Code(zeros_come_in), 'border = "zero"'),
    "wrapped border": (Code(rolled), 'border = "wrap"'),
    "norm after the mean": (Code(norm_after_mean=True), 'shift_semantics = "paper", norm_after_mean = true'),
    "norm after the mean, width first in place": (
        Code(width_first_in_place, norm_after_mean=True),
        'directions = "w+,w-,h+,h-", shift_semantics = "inplace", norm_after_mean = true',
    ),
    "overlapping patches": (
        Code(stride=2, padding=1),
        'shift_semantics = "paper", patch = { stride = 2, padding = 1 }',
    ),
}
NOT_EXPORTED = {
    "ReLU": (Code(act=F.relu), "ReLU for GELU"),
    "SiLU, width first": (Code(width_first, act=F.silu), "SiLU for GELU"),
    "RMSNorm": (Code(norm=rms), "RMSNorm for LayerNorm"),
    "RMSNorm and ReLU": (Code(norm=rms, act=F.relu), "ReLU for GELU and RMSNorm for LayerNorm"),
}


@pytest.mark.parametrize(("code", "options"), BY_OPTIONS.values(), ids=list(BY_OPTIONS))
def test_another_order_of_directions_is_named_with_the_options_that_export_it(
    tmp_path: Path, code: Code, options: str
) -> None:
    case = Case.make(tmp_path, code)
    ended, said = case.export()
    assert ended == 1 and not (tmp_path / "bundle").exists()
    assert "neither semantics gives the recorded logits, but shift directions" in said and f"pass {options} (" in said
    ended, said = case.export(*options.split())
    assert ended == 0, said
    np.testing.assert_allclose(case.artifact_logits(), np.load(case.reference)["logits"], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("code", "lines"), BY_LAYOUT.values(), ids=list(BY_LAYOUT))
def test_another_structure_is_named_with_the_lines_of_a_layout_file_that_export_it(
    tmp_path: Path, code: Code, lines: str
) -> None:
    case = Case.make(tmp_path, code)
    ended, said = case.export()
    assert ended == 1 and not (tmp_path / "bundle").exists()
    assert f'say so in a layout file with extends = "canonical", {lines}, and pass it' in said
    (written,) = re.findall(r"layout file with (extends = .*), and pass it", said)
    (tmp_path / "own.toml").write_text(re.sub(r', (?=[a-z_]+ = ["a-z{])(?![^{]*})', "\n", written))
    ended, said = case.export("--layout", tmp_path / "own.toml", "--shift-semantics", "auto")
    assert ended == 0, said
    assert "warning" not in said
    np.testing.assert_allclose(case.artifact_logits(), np.load(case.reference)["logits"], rtol=1e-3, atol=1e-4)
    assert read_bundle(tmp_path / "bundle").manifest.source.layout == "own"


@pytest.mark.parametrize(("code", "named"), NOT_EXPORTED.values(), ids=list(NOT_EXPORTED))
def test_what_cannot_be_exported_is_named_all_the_same(tmp_path: Path, code: Code, named: str) -> None:
    ended, said = Case.make(tmp_path, code).export()
    assert ended == 1 and not (tmp_path / "bundle").exists()
    assert f"A model with {named} cannot be exported" in said


def test_logits_of_no_structure_at_all_get_no_advice(tmp_path: Path) -> None:
    case = Case.make(tmp_path, Code())
    np.savez(case.reference, input=images(), logits=Code().logits(random_model(SPEC, 1).state_dict(), images()))
    ended, said = case.export()
    assert ended == 1 and "nor does another order of directions, border, norm" in said and "own.toml" not in said


@pytest.mark.parametrize("sample", [0, 2])
def test_a_structure_must_give_every_recorded_sample(sample: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is off in a single sample does not fit, whichever that is; of those that fit, the nearest comes first."""
    recorded = np.random.default_rng(0).standard_normal((3, 7))
    off = recorded.copy()
    off[sample] *= 1.1
    gives = {"off": off, "near": recorded * 1.001, "exact": recorded, "far": recorded * 1.019}

    class Given(Structure):
        def __init__(self, name: str) -> None:
            self.name = name

        def build(self, weights: Any) -> Any:
            return gives[self.name]

        def changes(self, assumed: Spec) -> Iterator[Change]:
            yield Change(self.name)

    class OfFamily:
        def alternatives(self, spec: Spec) -> Iterator[Iterator[Structure]]:
            yield iter([Given("off")])
            yield map(Given, gives)

    monkeypatch.setattr(structure_evidence, "family_of", lambda spec: OfFamily())
    monkeypatch.setattr(structure_evidence.reference_logits, "run", lambda model, images: model[: len(images)])
    fits = structure_evidence.find(SPEC, {}, np.zeros((3, 1)), recorded, FITS_RELATIVE_L2)
    assert [fit.structure.name for fit in fits] == ["exact"]  # type: ignore[attr-defined]
    del gives["exact"]
    fits = structure_evidence.find(SPEC, {}, np.zeros((3, 1)), recorded, FITS_RELATIVE_L2)
    assert [fit.structure.name for fit in fits] == ["near"]  # type: ignore[attr-defined]


def test_one_change_is_tried_before_two_and_four_directions_in_every_order() -> None:
    one = list(next(S2MLPFamily().alternatives(SPEC)))
    assert {s.spec.shift.border for s in one} == {"keep", "zero", "wrap"}
    assert len({s.spec.shift.offsets for s in one if len(s.spec.shift.offsets) == 4}) == 24
    assert {s.activation for s in one} == set(structures.ACTIVATIONS)
    for structure in one:
        parts = [c for c in structure.changes(SPEC) if "semantics" not in c.text]
        assert len(parts) <= 2  # directions and border are one


# Layout files


def own(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(['extends = "canonical"', *lines]))
    return path


@pytest.mark.parametrize(
    ("line", "offsets"),
    [
        ('directions = "8"', "8"),
        ('directions = "w+,w-,h+,h-"', "w+,w-,h+,h-"),
        ('directions = ["w+", "w-", "h+", "h-"]', "w+,w-,h+,h-"),
        ("directions = [[0, 1], [0, -1], [1, 0], [-1, 0]]", "w+,w-,h+,h-"),
        ("directions = [[2, -1]]", "h+2w-"),
    ],
)
def test_directions_are_said_by_name_or_in_numbers(tmp_path: Path, line: str, offsets: str) -> None:
    assert find_layout(str(own(tmp_path / "own.toml", line))).shift.directions == offsets


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('directions = "w+,x-"', "'x-' is not a direction"),
        ("directions = []", "at least 1 item"),
        ("directions = [[1, 0, 0]]", "directions.0"),
        ("directions = [[1000, 0]]", "less than 1000"),
        ('border = "reflect"', "border: Input should be 'keep', 'zero' or 'wrap'"),
        ('border = "zero"\nshift_semantics = "inplace"', "border zero goes with paper semantics only"),
        ('extends = "none"', "no layout is called 'none'"),
        ('extends = "other.toml"', "no layout is called 'other.toml'"),
    ],
)
def test_a_structure_that_cannot_be_is_refused_with_the_place(tmp_path: Path, line: str, problem: str) -> None:
    path = tmp_path / "own.toml"
    path.write_text(line if line.startswith("extends") else f'extends = "canonical"\n{line}')
    with pytest.raises(LayoutError) as caught:
        find_layout(str(path))
    assert problem in str(caught.value) and "\n" not in str(caught.value)


def test_a_layout_that_extends_another_adds_names_and_keeps_a_refusal(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text('extends = "jittor-mlp"\n[keys]\n"head.norm" = "norm"\n"head.fc" = "mlp_head.2"')
    found, base = find_layout(str(path)), find_layout("jittor-mlp")
    assert found.keys == {**base.keys, "head.norm": "norm", "head.fc": "mlp_head.2"}
    assert found.name == "own" and found.code_shifts_in_place
    path.write_text('extends = "post-norm"')
    assert find_layout(str(path)).refuse == find_layout("post-norm").refuse


def test_a_norm_after_the_mean_needs_a_norm(tmp_path: Path) -> None:
    torch.save(random_model(small_spec()).state_dict(), tmp_path / "model.pt")
    layout = own(tmp_path / "own.toml", "norm_after_mean = true")
    ran = run("inspect", tmp_path / "model.pt", "--layout", layout, "--image-size", "20x28")
    assert ran.code == 3 and "expected head.norm" in ran.err


def test_the_command_line_replaces_the_directions_of_a_layout_and_leaves_the_rest(tmp_path: Path) -> None:
    torch.save(random_model(SPEC).state_dict(), tmp_path / "model.pt")
    layout = find_layout(str(own(tmp_path / "own.toml", 'border = "wrap"', 'directions = "8"')))
    load = {"layout": layout, "image_size": (20, 28)}
    assert load_checkpoint(tmp_path / "model.pt", **load).spec.shift.directions == "8"  # type: ignore[arg-type]
    replaced = load_checkpoint(tmp_path / "model.pt", offsets=((0, 1), (1, 0)), **load).spec  # type: ignore[arg-type]
    assert replaced.shift == Shift(((0, 1), (1, 0)), border="wrap")


# Weights in another form


def random_state(spec: S2MLPSpec) -> dict[str, Tensor]:
    return {name: tensor.double() for name, tensor in random_model(spec).state_dict().items()}


def logits_of(path: Path, layout: Path, x: Tensor) -> Tensor:
    """The reference's logits of the checkpoint at ``path``."""
    found = load_checkpoint(path, layout=find_layout(str(layout)), image_size=(x.shape[2], x.shape[3]))
    return logits(S2MLP.of(found.spec, found.weights), x)


def test_linear_layers_that_are_1x1_convolutions_are_read_where_a_layout_says_so(tmp_path: Path) -> None:
    state = random_state(SPEC)
    kept = {n: t[:, :, None, None] if t.ndim == 2 else t for n, t in state.items()}
    torch.save(kept, tmp_path / "model.pt")
    x = torch.from_numpy(images()).double()
    layout = own(tmp_path / "own.toml", "pointwise_convolutions = true")
    expected = Code().logits(state, x.numpy())
    np.testing.assert_allclose(logits_of(tmp_path / "model.pt", layout, x).numpy(), expected, rtol=1e-9, atol=1e-12)
    ran = run("inspect", tmp_path / "model.pt", "--image-size", "20x28")
    assert ran.code == 3 and "say pointwise_convolutions = true in a layout file" in " ".join(ran.err.split())


@pytest.mark.parametrize("order", ["channels-first", "channels-last"])
def test_a_linear_patch_embedding_is_read_in_the_order_in_which_its_code_flattens_a_patch(
    tmp_path: Path, order: str
) -> None:
    ph, pw, c = 4, 2, 3
    spec = replace(SPEC, stages=tuple(replace(s, embedding=Embedding((ph, pw), (ph, pw))) for s in SPEC.stages))
    state = random_state(spec)
    torch.manual_seed(2)
    weight = state.pop("stages.0.embedding.weight").new_empty(16, ph * pw * c).normal_()
    torch.save({**state, "stages.0.embedding.weight": weight}, tmp_path / "model.pt")
    x = torch.from_numpy(images(size=(20, 14))).double()
    # b c (h ph) (w pw) -> b h w (c ph pw), or (ph pw c)
    cut = x.reshape(3, c, 5, ph, 7, pw).permute(0, 2, 4, *((1, 3, 5) if order == "channels-first" else (3, 5, 1)))
    expected = F.linear(cut.flatten(3), weight, state["stages.0.embedding.bias"])
    layout = own(tmp_path / "own.toml", f'patch = {{ size = [{ph}, {pw}], order = "{order}" }}')
    found = load_checkpoint(tmp_path / "model.pt", layout=find_layout(str(layout)), image_size=(20, 14))
    model = S2MLP.of(found.spec, found.weights)
    _, embedded = next(activations(model, x))
    torch.testing.assert_close(embedded, expected, rtol=1e-9, atol=1e-12)
    (told,) = (w for w in checkpoint_warnings(found) if "trust" in w)
    assert f"patches flattened {order}" in told


@pytest.mark.parametrize(
    ("lines", "shape", "problem"),
    [
        ('patch = { size = 4, order = "channels-last" }', (16, 47), "[out, 16 · channels], as the layout says"),
        ('patch = { size = 4, order = "channels-last" }', (16, 3, 4, 4), "[out, 16 · channels], as the layout says"),
        ("norm_epsilon = 1e-5", (16, 48), "say their size and order under [patch]"),
    ],
)
def test_a_patch_embedding_in_another_form_than_said_is_refused(
    tmp_path: Path, lines: str, shape: tuple[int, ...], problem: str
) -> None:
    torch.save({**random_state(SPEC), "stages.0.embedding.weight": torch.zeros(shape)}, tmp_path / "model.pt")
    with pytest.raises(LayoutError) as caught:
        logits_of(tmp_path / "model.pt", own(tmp_path / "own.toml", lines), torch.zeros(1, 3, 20, 28))
    assert problem in str(caught.value) and "stages.0.embedding.weight has shape" in str(caught.value)


@pytest.mark.parametrize(
    "line", ["size = 4", 'order = "channels-last"', 'size = 4, order = "channels-last", stride = 2']
)
def test_a_linear_patch_embedding_needs_size_and_order_and_no_stride(tmp_path: Path, line: str) -> None:
    with pytest.raises(LayoutError, match="a linear patch embedding"):
        find_layout(str(own(tmp_path / "own.toml", f"patch = {{ {line} }}")))


def test_a_norm_behind_the_patch_embedding_is_exported_and_traced(tmp_path: Path) -> None:
    spec = with_stem_norms(SPEC)
    state = random_model(spec).state_dict()
    layout = own(tmp_path / "own.toml", "[keys]", '"stages.{s}.stem_norm" = "patch_norm.{s}"')
    torch.save({n.replace("stages.0.stem_norm", "patch_norm.0"): t for n, t in state.items()}, tmp_path / "model.pt")
    x = torch.from_numpy(images())
    e = "stages.0.embedding"
    expected = F.conv2d(x, state[f"{e}.weight"], state[f"{e}.bias"], 4).permute(0, 2, 3, 1)
    weight, bias = state["stages.0.stem_norm.weight"], state["stages.0.stem_norm.bias"]
    expected = layer_norm(expected, weight, bias)
    found = load_checkpoint(tmp_path / "model.pt", layout=find_layout(str(layout)), image_size=(20, 28))
    assert found.spec == replace(spec, biases=found.spec.biases)
    _, embedded = next(activations(S2MLP.of(found.spec, found.weights), x))
    torch.testing.assert_close(embedded, expected)
    ran = run("export", tmp_path / "model.pt", "--layout", layout, "--image-size", "20x28", "-o", tmp_path / "bundle")
    assert ran.code == 0, ran.err
    assert run("verify", tmp_path / "bundle", "--per-block").code == 0


# Without evidence


def warnings_of(spec: S2MLPSpec, tmp_path: Path, *lines: str) -> list[str]:
    torch.save(random_model(spec).state_dict(), tmp_path / "model.pt")
    layout = find_layout(str(own(tmp_path / "own.toml", *lines)))
    return checkpoint_warnings(load_checkpoint(tmp_path / "model.pt", layout=layout, image_size=spec.image_size))


def test_a_layout_of_ones_own_warns_of_all_that_was_taken_on_trust_and_what_nobody_said(tmp_path: Path) -> None:
    (told,) = warnings_of(SPEC, tmp_path, "norm_after_mean = true", 'directions = "w+,w-,h+,h-"')
    for part in (
        "layout own: ",
        "taken on trust",
        "shift directions w+,w-,h+,h-;",
        "border keep (the default)",
        "GELU",
        "epsilon 1e-05 (the default)",
        "patches of stride 4x4, padding 0x0 (the default)",
        "norm behind the mean.",
        "--reference",
    ):
        assert part in told
    (told,) = warnings_of(small_spec(), tmp_path, 'border = "zero"', "norm_epsilon = 1e-6")
    assert "border zero;" in told and "epsilon 1e-06;" in told and "head's norm" not in told


def test_built_in_layouts_and_evidence_leave_nothing_to_trust(tmp_path: Path) -> None:
    torch.save(random_model(SPEC).state_dict(), tmp_path / "model.pt")
    assert checkpoint_warnings(load_checkpoint(tmp_path / "model.pt", image_size=(20, 28))) == []
    case = Case.make(tmp_path, Code(norm_after_mean=True))
    layout = own(tmp_path / "own.toml", "norm_after_mean = true")
    ended, said = case.export("--layout", layout)
    assert ended == 0 and "warning" not in said, said
    ran = run("export", case.checkpoint, "--layout", layout, "-o", tmp_path / "unproven")
    assert ran.code == 0 and "taken on trust" in " ".join(ran.err.split())
