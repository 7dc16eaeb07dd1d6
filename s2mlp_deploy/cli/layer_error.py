"""Curves of error against depth for published bundles, and the reasons why one cannot be drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from s2mlp_deploy.bundle import golden_tensors
from s2mlp_deploy.bundle.contents import Bundle
from s2mlp_deploy.bundle.read import read_manifest
from s2mlp_deploy.cli import plot
from s2mlp_deploy.cli.lines import model_line
from s2mlp_deploy.cli.plot import Curve
from s2mlp_deploy.errors import UsageError
from s2mlp_deploy.formats import registry
from s2mlp_deploy.pipeline import verify as verifying
from s2mlp_deploy.pipeline.request import ExportRequest
from s2mlp_deploy.pipeline.verify import Layers
from s2mlp_deploy.quantization.settings import SYNTHETIC
from s2mlp_deploy.schema.manifest import Manifest
from s2mlp_deploy.schema.spec import Spec


def plan(
    requests: Sequence[ExportRequest], path: Path, *, replace: bool, warn: Callable[[str], None]
) -> tuple[Path, ...]:
    """Those of the bundles to be made that ``path`` will show, before any work is done; ``warn`` receives the reasons for the others.

    Raises:
        UsageError: where none of them can be drawn, or ``path`` lies in one of them.
        OutputError, RuntimeMissingError: as :func:`plot.check`.
    """
    reasons = [_reason(request) for request in requests]
    left_out = dict.fromkeys(reason for reason in reasons if reason)
    if all(reasons):
        raise UsageError(f"--plot has nothing to draw: {'; '.join(left_out)}")
    _check(path, [request.destination for request in requests], replace=replace)
    for reason in left_out:
        warn(f"left out of --plot: {reason}")
    return tuple(r.destination for r, reason in zip(requests, reasons, strict=True) if reason is None)


def check(directory: Path, path: Path, *, replace: bool) -> None:
    """Refuse to draw the bundle at ``directory`` where that cannot be done, before it is run.

    Raises:
        BundleError: where there is none.
        UsageError, OutputError, RuntimeMissingError: as :func:`plan`.
    """
    manifest = read_manifest(directory)
    if manifest.format in registry.names() and not verifying.shows_layers(manifest.format):
        raise UsageError(f"--plot has nothing to draw: {_hidden(manifest.format)}")
    _check(path, [directory], replace=replace)


def curves(bundles: Sequence[Bundle]) -> tuple[Curve, ...]:
    """A curve for each of ``bundles``, which are run once for it."""
    return tuple(curve(b, verifying.layers(b), name) for b, name in zip(bundles, _names(bundles), strict=True))


def curve(bundle: Bundle, layers: Layers, name: str | None = None) -> Curve:
    """The curve of one bundle, named ``name``, else by its precision."""
    manifest = bundle.manifest
    assert manifest.tolerance
    return Curve(
        name or manifest.precision,
        tuple((layer, distance.relative_l2) for layer, distance in layers),
        manifest.tolerance.relative_l2,
        _in_float(manifest, [layer for layer, _ in layers]),
        "noise" if golden_tensors.load(bundle.golden).traced == "noise" else "an image",
    )


def draw(curves: Sequence[Curve], spec: Spec, path: Path, *, replace: bool) -> None:
    """Draw ``curves`` of a model of ``spec``.

    Raises:
        OutputError: as :func:`plot.check`.
    """
    plot.save(plot.figure(curves, model_line(spec)), path, replace=replace)


def _reason(request: ExportRequest) -> str | None:
    """Why the bundle cannot be drawn, or None."""
    if not verifying.shows_layers(request.format.name):
        return _hidden(request.format.name)
    if not request.evidence.gate:
        return "with --no-gate there are no golden tensors to compare the layers with"
    if request.synthetic:
        return (
            f"with --calibration {SYNTHETIC} there are no golden tensors to compare {request.precision.row.name} with"
        )
    if request.source.is_bundle and read_manifest(request.source.path).tolerance is None:
        return f"{request.source.path} holds no golden tensors to compare the layers with"
    return None


def _hidden(format: str) -> str:
    return f"--format {format} does not show its layers"


def _check(path: Path, bundles: Sequence[Path], *, replace: bool) -> None:
    for directory in bundles:
        if directory.resolve() in path.resolve().parents:
            raise UsageError(f"--plot {path} lies in the bundle {directory}, which holds nothing but its own files")
    plot.check(path, replace=replace)


def _names(bundles: Sequence[Bundle]) -> list[str]:
    one = len({bundle.manifest.format for bundle in bundles}) == 1
    return [b.manifest.precision if one else f"{b.manifest.format} {b.manifest.precision}" for b in bundles]


def _in_float(manifest: Manifest, layers: Sequence[str]) -> frozenset[str]:
    """The traced layers that hold a matrix product or convolution which the accuracy limit left in float."""
    kept = manifest.quantization.float_layers if manifest.quantization else ()
    return frozenset(layer for layer in layers if any(name == layer or name.startswith(f"{layer}/") for name in kept))
