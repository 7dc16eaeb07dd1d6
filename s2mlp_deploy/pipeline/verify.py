"""Check a bundle on the machine at hand, against the golden tensors that travel in it.

Needs the artifact's runtime, not torch. Hashes come first: a file that was changed since the
export is never loaded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import TypeAlias, get_type_hints

from s2mlp_deploy.bundle import golden_tensors, network_golden
from s2mlp_deploy.bundle.contents import GOLDEN, MANIFEST, Bundle
from s2mlp_deploy.bundle.golden_tensors import Golden
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.bundle.signature import TrustedKey
from s2mlp_deploy.errors import BundleError, RuntimeMissingError, UsageError
from s2mlp_deploy.formats import float16_on_cpu, memory_limit, registry
from s2mlp_deploy.formats.base import Format, open_at
from s2mlp_deploy.gate import gate, golden, golden_images, manifest_consistency, network_gate
from s2mlp_deploy.gate.checks import Verdict
from s2mlp_deploy.gate.distance import compare, first_divergence, scale_of
from s2mlp_deploy.gate.golden_images import Preparation
from s2mlp_deploy.gate.io_adapter import ArtifactIo
from s2mlp_deploy.runtime.session import HERE, Placement, Session, TracingSession, description_of, execution_of
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.onnx_network import OnnxNetwork
from s2mlp_deploy.schema.report import Distance, Execution
from s2mlp_deploy.schema.spec import Spec
from s2mlp_deploy.schema.tolerance import Tolerance
from s2mlp_deploy.system.timing import timed_ms

LATENCY_RUNS = 5

Layers: TypeAlias = tuple[tuple[str, Distance], ...]
"""Each layer's name and its distance from the reference, in the order of computation."""


@dataclass(frozen=True)
class Verification:
    """The result of checking a bundle on this machine.

    ``preparation`` is the check of the golden images, where the bundle has any.
    ``cause`` is why numbers are off, where that is known.
    ``layers`` holds each layer's distance from the reference in the order of computation, where
    requested; ``diverges_at`` the first beyond ``layer_limit``. ``latency_ms`` is that of the golden batch, where requested;
    ``execution`` is how the artifact ran on a GPU, where it did.
    """

    bundle: Bundle
    verdict: Verdict
    preparation: Preparation | None = None
    cause: str | None = None
    layers: Layers = ()
    layer_limit: float = 0.0
    diverges_at: str | None = None
    latency_ms: float | None = None
    execution: Execution | None = None

    @property
    def passed(self) -> bool:
        """Whether the logits are right, and images are prepared as they were where the bundle was made."""
        return self.verdict.passed and (self.preparation is None or self.preparation.passed)


def verify(
    directory: Path,
    *,
    per_block: bool = False,
    publisher: TrustedKey | None = None,
    timed: bool = False,
    placement: Placement = HERE,
) -> Verification:
    """Check the bundle at ``directory``: that ``publisher`` signed it, where one is given, then its files, then its numbers, on the
    device of ``placement``.

    Raises:
        BundleError: where the bundle is damaged, or was published without golden tensors.
        SignatureError, KeyFileError: as :func:`s2mlp_deploy.bundle.signature.check`.
        RuntimeMissingError: where the artifact's runtime, or the package that knows the format, is not here.
        UsageError: for ``per_block`` where the runtime cannot trace layers, and for a ``placement`` that the format does not have.
    """
    bundle = read_bundle(directory, publisher)
    if per_block and placement.provider not in (None, "cpu"):
        raise UsageError("--per-block traces layers on the processor: leave it out, or --provider")
    with memory_limit.bounded(bundle, on_gpu=on_gpu(bundle, placement)):
        return _verify(bundle, placement, per_block=per_block, timed=timed)


def on_gpu(bundle: Bundle, placement: Placement) -> bool:
    """Whether the bundle runs on a GPU, as far as that is known; False where nothing runs its format."""
    name = bundle.manifest.format
    if placement.provider:
        return placement.provider != "cpu"
    return name in registry.names() and registry.find(name).on_gpu(bundle.artifact)


def _verify(bundle: Bundle, placement: Placement, *, per_block: bool, timed: bool) -> Verification:
    if isinstance(bundle.manifest.spec, OnnxNetwork):
        if per_block:
            raise UsageError("--per-block is for networks of a family, whose layers are known: leave it out")
        return _verify_network(bundle, bundle.manifest.spec, placement, timed=timed)
    expected, tolerance, session = _load(bundle, placement)
    manifest_consistency.check(bundle.manifest, description_of(session), bundle.directory / MANIFEST)
    preparation = golden_images.check(bundle, expected)
    traced = _traced(bundle, session) if per_block else None
    verdict = gate.gate(session, expected, tolerance, ArtifactIo.of(bundle.manifest), twice=True)
    latency = _latency(partial(session.run, _batch(bundle, expected))) if timed else None
    execution = execution_of(session)
    cause = None if verdict.passed else _cause(bundle, execution)
    result = Verification(bundle, verdict, preparation, cause, latency_ms=latency, execution=execution)
    if traced is None:
        return result
    layers, limit = _layers(bundle, traced, expected), tolerance.relative_l2
    return replace(result, layers=layers, layer_limit=limit, diverges_at=first_divergence(layers, limit))


def _batch(bundle: Bundle, expected: Golden) -> Array:
    """A golden input, as often as the artifact takes it at a time."""
    images = expected.inputs.get(expected.traced, next(iter(expected.inputs.values())))
    return images[:1].repeat(bundle.manifest.batch or 1, axis=0)


def _latency(call: Callable[[], object]) -> float:
    """The median of a few runs, in milliseconds; what comes before has warmed the session up."""
    return median(timed_ms(call, time.perf_counter)() for _ in range(LATENCY_RUNS))


def _verify_network(bundle: Bundle, network: OnnxNetwork, placement: Placement, *, timed: bool) -> Verification:
    target, tolerance = checked(bundle)
    expected = network_golden.load(bundle.golden, network)
    session = open_at(target, bundle.artifact, placement)
    manifest_consistency.check(bundle.manifest, description_of(session), bundle.directory / MANIFEST)
    tensors = network_gate.tensors_of(session)
    verdict = network_gate.gate(tensors, expected, tolerance, twice=True)
    latency = _latency(partial(tensors.compute, next(iter(expected.inputs.values())))) if timed else None
    execution = execution_of(session)
    cause = None if verdict.passed else _cause(bundle, execution)
    return Verification(bundle, verdict, cause=cause, latency_ms=latency, execution=execution)


def _cause(bundle: Bundle, execution: Execution | None) -> str | None:
    if execution:
        return execution.why_inexact
    target = registry.find(bundle.manifest.format)
    return float16_on_cpu.why_inexact(bundle.manifest, target, on_gpu=target.on_gpu(bundle.artifact))


def layers(bundle: Bundle) -> Layers:
    """Each layer's distance from the reference, in the order of computation, of a bundle whose files were checked.

    Raises:
        BundleError, RuntimeMissingError, UsageError: as :func:`verify` with ``per_block``.
    """
    expected, _, session = _load(bundle, HERE)
    return _layers(bundle, _traced(bundle, session), expected)


def shows_layers(format: str) -> bool:
    """Whether bundles of ``format`` can be traced: whether its ``open`` declares a session that traces.

    Raises:
        UsageError, RuntimeMissingError: as :func:`s2mlp_deploy.formats.registry.find`.
    """
    try:
        session = get_type_hints(registry.find(format).open).get("return")
    except NameError:  # of a type that its module imports for type checkers only
        return False
    return isinstance(session, type) and issubclass(session, TracingSession)


def _load(bundle: Bundle, placement: Placement) -> tuple[Golden, Tolerance, Session]:
    target, tolerance = checked(bundle)
    expected = golden_tensors.load(bundle.golden)
    return expected, tolerance, open_at(target, bundle.artifact, placement)


def checked(bundle: Bundle) -> tuple[Format, Tolerance]:
    """The format of ``bundle``, which can be opened here, and the tolerance; its artifact was inspected."""
    manifest = bundle.manifest
    if manifest.tolerance is None or GOLDEN not in manifest.files:
        raise BundleError(
            f"{bundle.directory} was exported with --no-gate or synthetic calibration and holds no golden tensors to check "
            "against: export it again without"
        )
    if manifest.format not in (formats := registry.names()):
        raise RuntimeMissingError(
            f"{bundle.directory} has the format {manifest.format!r}, and no installed package runs it: there are "
            f"{', '.join(formats) or 'none'}"
        )
    target = registry.find(manifest.format)
    if manifest.precision not in target.precisions:
        raise RuntimeMissingError(
            f"{bundle.directory} holds a {manifest.precision} graph, which nothing runs as format {manifest.format!r}: compile it with "
            "s2mlp-export for a runtime that does"
        )
    registry.inspect(bundle)
    float16_on_cpu.refuse_old(bundle, target)
    return target, manifest.tolerance


def _traced(bundle: Bundle, session: Session) -> TracingSession:
    if not isinstance(session, TracingSession):
        raise UsageError(
            f"--per-block is for formats that show their layers, and {bundle.manifest.format} does not: leave it out"
        )
    return session


def _layers(bundle: Bundle, session: TracingSession, expected: Golden) -> Layers:
    spec = bundle.manifest.classifier
    if expected.traced not in expected.inputs or list(expected.trace) != list(spec.layer_maps()):
        raise BundleError(f"{bundle.golden} does not trace the layers of the manifest's model: copy the bundle again")
    try:
        return tuple(_layer_distances(session, spec, expected, bundle.manifest.batch))
    except ValueError as error:  # NumPy's, for shapes that do not fit
        raise BundleError(
            f"{bundle.directory}: the traced layers differ in shape ({error}): copy the bundle again"
        ) from error


def _layer_distances(
    session: TracingSession, spec: Spec, expected: Golden, batch: int | None
) -> list[tuple[str, Distance]]:
    sample = expected.inputs[expected.traced][:1]
    rows = batch or 1
    values = session.trace(sample.repeat(rows, axis=0), tuple(expected.trace))
    maps = _first_maps(values, spec, rows)
    scale = scale_of(expected.logits.values())
    return [(name, _whole(maps[name], want, scale)) for name, want in expected.trace.items()]


def _first_maps(values: Mapping[str, Array], spec: Spec, rows: int) -> dict[str, Array]:
    """The sampled positions of each layer's first map, from tokens in the order of the spec."""
    sizes, maps = spec.map_sizes(spec.image_size), spec.layer_maps()
    found = {}
    for name, value in values.items():
        if (index := maps[name]) is not None:
            height, width = sizes[index]
            in_batch = (height, width, rows, -1) if spec.positions_first else (rows, height, width, -1)
            tokens = value.reshape(in_batch)
            found[name] = golden.sample_map(tokens[:, :, 0] if spec.positions_first else tokens[0])
        else:
            found[name] = value[:1]
    return found


def _whole(actual: Array, expected: Array, scale: float | None) -> Distance:
    return compare(actual.reshape(1, -1), expected.reshape(1, -1), scale)
