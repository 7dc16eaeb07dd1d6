"""The candidates of a tune: the int8 recipes that are tried for each format."""

from __future__ import annotations

from pathlib import Path

import pytest

from s2mlp_deploy.formats.registry import find
from s2mlp_deploy.pipeline.request import Source
from s2mlp_deploy.pipeline.tune import candidates
from s2mlp_deploy.pipeline.tune.candidates import Build, of_checkpoint
from s2mlp_deploy.pipeline.tune.request import Space, TuneRequest
from s2mlp_deploy.quantization.settings import Int8


def builds(format: str, monkeypatch: pytest.MonkeyPatch, **settings: object) -> tuple[Build, ...]:
    """Those of ``format`` at int8, as on a machine that has its device."""
    monkeypatch.setattr(candidates, "_formats", lambda request, excluded: [(find(format), ())])
    int8 = Int8("images", **settings)  # type: ignore[arg-type]
    return of_checkpoint(TuneRequest(Source(Path("ckpt.pt")), int8=int8, space=Space(precisions=("int8",)))).builds


@pytest.mark.parametrize("format", ["trt", "trt-rtx"])
def test_engines_are_tried_with_float16_between_their_int8_products_too(
    format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {build.name: build.flags[4:] for build in builds(format, monkeypatch)} == {
        f"{format} int8": (),
        f"{format} int8 quantize-ends": ("--quantize-ends",),
        f"{format} int8 between=fp16": ("--between=fp16",),
        f"{format} int8 quantize-ends between=fp16": ("--quantize-ends", "--between=fp16"),
    }


def test_where_that_is_settled_or_biases_are_integers_it_is_not_varied(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [build.precision.between for build in builds("trt", monkeypatch, between="fp16")] == ["fp16"] * 2  # type: ignore[union-attr]
    assert {build.precision.between for build in builds("onnx", monkeypatch)} == {"fp32"}  # type: ignore[union-attr]


def test_the_recipe_with_fewer_options_is_simpler(monkeypatch: pytest.MonkeyPatch) -> None:
    first, *_, last = sorted(builds("trt", monkeypatch), key=lambda build: build.complexity)
    assert (first.name, last.name) == ("trt int8", "trt int8 quantize-ends between=fp16")


@pytest.mark.parametrize(("provider", "targets"), [("cuda", [None, "cuda"]), ("webgpu", [None])])
def test_on_a_provider_that_has_a_graph_of_its_own_that_is_tried_too(
    provider: str, targets: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = (("provider", provider),)
    monkeypatch.setattr(candidates, "_formats", lambda request, excluded: [(find("ort"), options)])
    found = of_checkpoint(TuneRequest(Source(Path("ckpt.pt")), space=Space(precisions=("fp16",)))).builds
    assert [build.precision.target for build in found] == targets  # type: ignore[union-attr]
    assert found[-1].flags[-1] == ("--target=cuda" if len(targets) > 1 else "fp16")
    assert len({build.name for build in found}) == len(found)
