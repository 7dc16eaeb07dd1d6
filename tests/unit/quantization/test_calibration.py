"""Calibration on distributions whose right ranges are known."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
import pytest

from s2mlp_deploy.errors import DataError
from s2mlp_deploy.passes.recipe import Range
from s2mlp_deploy.quantization.calibration import Observe, calibrate, observer
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.choices import CalibrationMethod

METHODS: tuple[CalibrationMethod, ...] = ("minmax", "percentile", "mse", "entropy")
CLIPPING: tuple[CalibrationMethod, ...] = ("percentile", "mse", "entropy")


def images(count: int = 48) -> Array:
    return np.random.default_rng(0).standard_normal((count, 3, 20, 28)).astype(np.float32)


def showing(values: Array) -> Observe:
    """``values`` as the activation ``x``, spread over the 48 images: row i is what image i gives."""
    rows = values.reshape(48, -1)
    index = {image.tobytes(): i for i, image in enumerate(images())}
    return lambda batch: {"x": np.concatenate([rows[index[image.tobytes()]] for image in batch])}


def ranged(values: Array, method: CalibrationMethod) -> Range:
    return calibrate(showing(values.astype(np.float32)), images(), method)["x"]


def normal(count: int = 48 * 2500) -> Array:
    return np.random.default_rng(3).standard_normal(count)


def uniform(low: float, high: float, count: int = 48 * 2500) -> Array:
    return np.random.default_rng(3).uniform(low, high, count)


def with_outlier(values: Array, outlier: float) -> Array:
    values = values.copy()
    values[len(values) // 3] = outlier
    return values


def several(batch: Array) -> Mapping[str, Array]:
    tokens = batch.transpose(0, 2, 3, 1).reshape(-1, 3)
    return {"a": tokens, "b": np.tanh(tokens) + 2, "c": np.maximum(tokens, 0) * 1e-3}


@pytest.mark.parametrize("count", [16, 17, 31, 48])
@pytest.mark.parametrize("batch", [1, 3, 8, 1000])
def test_minmax_is_exact_whatever_the_batch_size(count: int, batch: int) -> None:
    found = calibrate(several, images(count), "minmax", batch=batch)
    whole = several(images(count))
    assert found == {name: Range(float(x.min()), float(x.max())) for name, x in whole.items()}
    assert list(found) == ["a", "b", "c"]


@pytest.mark.parametrize("method", CLIPPING)
def test_clipped_ranges_do_not_depend_on_the_batch_size_either(method: CalibrationMethod) -> None:
    assert calibrate(several, images(), method, batch=5) == calibrate(several, images(), method, batch=48)


@pytest.mark.parametrize(("batch", "rows"), [(None, [0, 1, 2]), (3, [0, 1, 2]), (7, [0, 1, 2, 0, 1, 2, 0])])
def test_a_fixed_batch_is_filled_with_the_images_themselves(batch: int | None, rows: list[int]) -> None:
    """Which change no range, where other values would."""

    class Traces:
        def run(self, images: Array) -> Array:
            raise AssertionError("it is traced")

        def trace(self, images: Array, names: tuple[str, ...]) -> dict[str, Array]:
            return dict.fromkeys(names, -images)

    given = images()[:3]
    found = observer(Traces(), ("input", "negative"), batch)(given)
    assert found.keys() == {"input", "negative"}
    np.testing.assert_array_equal(found["input"], given[rows])
    np.testing.assert_array_equal(found["negative"], -given[rows])


@pytest.mark.parametrize("method", METHODS)
def test_no_range_exceeds_what_occurred(method: CalibrationMethod) -> None:
    for name, r in calibrate(several, images(), method).items():
        x = several(images())[name]
        assert x.min() <= r.low < r.high <= x.max()


@pytest.mark.parametrize("outlier", [20.0, -20.0])
def test_one_outlier_is_clipped_by_all_but_minmax(outlier: float) -> None:
    values = with_outlier(normal(48 * 20_000), outlier)
    far = max if outlier > 0 else min
    assert abs(far(ranged(values, "minmax").__dict__.values())) == 20
    for method in CLIPPING:
        r = ranged(values, method)
        assert 2.5 < r.high < 6 and -6 < r.low < -2.5, (method, r)


def test_percentile_is_the_quantile_of_a_normal_distribution() -> None:
    r = ranged(normal(48 * 20_000), "percentile")
    assert r.high == pytest.approx(3.719, abs=0.1)
    assert r.low == pytest.approx(-3.719, abs=0.1)


@pytest.mark.parametrize("method", CLIPPING)
@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (-0.17, 3.0), (0.0, 250.0), (-2e-5, 1e-5)])
def test_a_uniform_distribution_is_not_clipped(low: float, high: float, method: CalibrationMethod) -> None:
    r = ranged(uniform(low, high), method)
    slack = 0.02 * max(-low, high)
    assert r.low == pytest.approx(low, abs=slack)
    assert r.high == pytest.approx(high, abs=slack)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("low", "high"), [(2.0, 5.0), (-5.0, -2.0)])
def test_a_range_without_zero_keeps_what_occurred(low: float, high: float, method: CalibrationMethod) -> None:
    r = ranged(uniform(low, high), method)
    assert min(abs(r.low), abs(r.high)) <= 2.1 and max(abs(r.low), abs(r.high)) >= 4.9


@pytest.mark.parametrize("method", CLIPPING)
def test_a_short_tail_is_kept_where_the_long_one_is_clipped(method: CalibrationMethod) -> None:
    # Behind a GELU: nothing below -0.17, a long tail above.
    x = normal(48 * 20_000)
    gelu = with_outlier(x * 0.5 * (1 + np.tanh(0.79788456 * (x + 0.044715 * x**3))), 25)
    r = ranged(gelu, method)
    assert r.low == pytest.approx(-0.17, abs=0.03)
    assert 2 < r.high < 15


def test_mse_gives_the_smaller_error_of_rounding_to_8_bits() -> None:
    values = with_outlier(normal(48 * 20_000), 20)

    def error(r: Range) -> float:
        step = (r.high - r.low) / 255
        restored = r.low + np.rint((np.clip(values, r.low, r.high) - r.low) / step) * step
        return float(((restored - values) ** 2).sum())

    assert error(ranged(values, "mse")) < error(ranged(values, "minmax")) / 2


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("count", [0, 1, 15])
def test_fewer_than_16_images_are_refused(count: int, method: CalibrationMethod) -> None:
    with pytest.raises(DataError, match=f"needs at least 16 images, and got {count}"):
        calibrate(several, images(count), method)


def test_constant_images_are_refused() -> None:
    grey = np.broadcast_to(np.linspace(-1, 1, 20, dtype=np.float32)[:, None, None, None], (20, 3, 20, 28))
    normalized = (grey - np.float32([[[0.485]], [[0.456]], [[0.406]]])) / np.float32([[[0.229]], [[0.224]], [[0.225]]])
    for constant in (grey, normalized):  # each channel by itself is constant
        with pytest.raises(DataError, match="every calibration image is constant: give real images"):
            calibrate(several, constant, "minmax")


def test_one_image_that_is_not_constant_is_enough_to_go_on() -> None:
    x = np.zeros((16, 3, 20, 28), np.float32)
    x[7, 1, 2, 3] = 1
    assert calibrate(lambda b: {"x": b}, x, "minmax") == {"x": Range(0.0, 1.0)}


@pytest.mark.parametrize("method", METHODS)
def test_an_activation_that_no_image_moves_is_named(method: CalibrationMethod) -> None:
    def observe(batch: Array) -> Mapping[str, Array]:
        return {**several(batch), "stage0/block01/gelu1": np.full((7, 5), 0.25, np.float32)}

    with pytest.raises(DataError, match="no calibration image moves stage0/block01/gelu1: give real images"):
        calibrate(observe, images(), method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_an_activation_that_is_not_finite_is_named(value: float, method: CalibrationMethod) -> None:
    def observe(batch: Array) -> Mapping[str, Array]:
        x = batch.copy()
        if (batch[0] == images()[40]).all():
            x[0, 0, 0, 0] = value
        return {"stage0/block01/gelu1": x}

    with pytest.raises(DataError, match=r"stage0/block01/gelu1 .*not finite"):
        calibrate(observe, images(), method)


def test_entropy_is_quiet_and_quick(capsys: pytest.CaptureFixture[str]) -> None:
    values = normal(48 * 500)
    start = time.process_time()
    observe = showing(values.astype(np.float32))
    found = calibrate(lambda b: {f"x{i}": observe(b)["x"] * (i + 1) for i in range(8)}, images(), "entropy")
    assert time.process_time() - start < 30
    assert len(found) == 8
    for i in range(8):  # it does not depend on the scale
        assert found[f"x{i}"].high == pytest.approx(found["x0"].high * (i + 1), rel=0.02)
    assert capsys.readouterr() == ("", "")
