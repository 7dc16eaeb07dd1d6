"""Load bundles as candidates: verified, comparable, and with different names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from s2mlp_bench.backends import BundleBackend
from s2mlp_bench.candidate import Candidate, Point
from s2mlp_deploy.bundle.contents import Bundle
from s2mlp_deploy.bundle.read import read_bundle, read_manifest, read_report
from s2mlp_deploy.errors import BundleError, ParityError, UsageError
from s2mlp_deploy.formats import registry
from s2mlp_deploy.pipeline import verify as verifying
from s2mlp_deploy.schema.manifest import Manifest
from s2mlp_deploy.schema.onnx_network import OnnxNetwork
from s2mlp_deploy.schema.precision import INT8
from s2mlp_deploy.schema.report import Report
from s2mlp_deploy.schema.size import format_size
from s2mlp_deploy.schema.spec import Spec
from s2mlp_deploy.system.progress import Listener
from s2mlp_deploy.system.wording import counted

INT8_LIMIT = INT8.rule.floor

SPEED_ONLY = "for benchmarks only"
"""The verdict of a bundle that was calibrated on noise: its logits are compared with a verified one's, loosely."""


def check_comparable(bundles: Sequence[Bundle]) -> None:
    """Check that all bundles have the same inputs and outputs.

    Raises:
        UsageError: where these differ.
    """
    first = bundles[0]
    second = "outputs" if isinstance(first.manifest.spec, OnnxNetwork) else "number of classes"
    for other in bundles[1:]:
        for what, of in (("input", _inputs), (second, _outputs)):
            if of(first.manifest) != of(other.manifest):
                raise UsageError(
                    f"{first.directory} and {other.directory} differ in their {what} ({of(first.manifest)} and "
                    f"{of(other.manifest)}), so their times cannot be compared"
                )


def _outputs(manifest: Manifest) -> str:
    if isinstance(manifest.spec, OnnxNetwork):
        return ", ".join(f"{entry.name} {list(entry.shape)}" for entry in manifest.spec.outputs)
    return counted(manifest.classifier.classes, "class")


def _inputs(manifest: Manifest) -> str:
    if isinstance(manifest.spec, OnnxNetwork):
        return ", ".join(f"{entry.name} {list(entry.shape)}" for entry in manifest.spec.inputs)
    return f"{counted(manifest.classifier.in_channels, 'channel')}, {format_size(manifest.classifier.image_size)}"


def verified(directories: Sequence[Path], listener: Listener) -> Iterator[Bundle]:
    """The bundles in ``directories``, each checked on this machine as far as it can be.

    Raises:
        BundleError: for one that is damaged, or was never checked.
        ParityError: for one whose logits are wrong.
        RuntimeMissingError: where its runtime is not here.
    """
    for directory in directories:
        with listener.step(f"verifying {directory}"):
            if read_manifest(directory).verdict == SPEED_ONLY:
                bundle = read_bundle(directory)
                registry.inspect(bundle)
                yield bundle
                continue
            result = verifying.verify(directory)
        if not result.passed:
            raise ParityError(f"{directory} does not compute what it should on this machine: s2mlp-verify shows more")
        yield result.bundle


def candidate_of(bundle: Bundle, point: Point, bundles: Sequence[Bundle]) -> Candidate:
    """``bundle`` at ``point``, on its own golden inputs, or, where it was made for speed only, on those of one of ``bundles``.

    Raises:
        BundleError: where it carries nothing, and no other bundle does for it.
    """
    manifest = bundle.manifest
    spec = manifest.spec
    golden_bundle, limit, remark = bundle, INT8_LIMIT, ""
    if manifest.tolerance is not None:
        limit = manifest.tolerance.relative_l2
    else:
        golden_bundle, remark = _verified_twin(bundle, bundles), "for speed only"
    report = read_report(bundle) or Report()
    return Candidate(
        bundle.directory.resolve().name,
        "bundle",
        BundleBackend(bundle),
        point,
        manifest.precision,
        spec.macs(point.size) if isinstance(spec, Spec) else None,
        limit,
        remark,
        golden_bundle=golden_bundle.directory,
        accuracy=report.accuracy,
        accuracy_inherited=report.accuracy is not None and report.own_accuracy is None,
        interface=manifest.interface,
    )


def _verified_twin(bundle: Bundle, bundles: Sequence[Bundle]) -> Bundle:
    """A verified bundle of the same checkpoint: its logits check those of a bundle without golden tensors."""
    wanted = bundle.manifest.source.sha256, bundle.manifest.interface
    for other in bundles:
        if other.manifest.tolerance and (other.manifest.source.sha256, other.manifest.interface) == wanted:
            return other
    raise BundleError(
        f"{bundle.directory} was calibrated on noise and holds no golden tensors to check its answers against: give a "
        "verified bundle of the same checkpoint with the same input and output, too"
    )


def check_names(candidates: Sequence[Candidate]) -> None:
    """Check that candidates have different names.

    Raises:
        UsageError: where two are called the same.
    """
    if len({candidate.name for candidate in candidates}) < len(candidates):
        raise UsageError("two bundles have the same name, or one is given twice: their results could not be told apart")
