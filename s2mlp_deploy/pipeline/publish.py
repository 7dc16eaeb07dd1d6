"""Check an artifact, describe it, and publish it as a bundle: one way for both stages."""

from __future__ import annotations

from dataclasses import dataclass, replace

from s2mlp_deploy.bundle.contents import GOLDEN, Artifact, Bundle
from s2mlp_deploy.bundle.golden_tensors import Golden
from s2mlp_deploy.bundle.network_golden import NetworkGolden
from s2mlp_deploy.bundle.staging import Staging
from s2mlp_deploy.errors import AccuracyError, BundleError, ModelError
from s2mlp_deploy.formats.base import Compiler, Format, open_at
from s2mlp_deploy.gate import gate, manifest_consistency, network_gate
from s2mlp_deploy.gate.checks import Verdict
from s2mlp_deploy.gate.evaluation import EvaluationSet, check_images
from s2mlp_deploy.gate.io_adapter import IoAdapter
from s2mlp_deploy.pipeline.model_card import model_card
from s2mlp_deploy.pipeline.request import Export, OutputOptions
from s2mlp_deploy.quantization import accuracy
from s2mlp_deploy.quantization.settings import Int8
from s2mlp_deploy.runtime.session import HERE, Description, Placement, Session, description_of, execution_of
from s2mlp_deploy.schema.manifest import Manifest
from s2mlp_deploy.schema.onnx_network import OnnxNetwork
from s2mlp_deploy.schema.report import Execution, Report
from s2mlp_deploy.system import machine, memory
from s2mlp_deploy.system.hashing import sha256
from s2mlp_deploy.system.progress import Progress


@dataclass(frozen=True)
class Candidate:
    """An artifact that may become a bundle, with everything needed to check it.

    Attributes:
        artifact: The files, as the format wrote them.
        draft: The manifest but for hashes. Its ``verdict`` is the one to publish where nothing is checked.
        golden: Golden tensors that lie beside the artifact; None where nothing is checked.
        pending: Whether a device has to check the artifact, because this machine cannot; it is recomputed where its format
            has a way.
        evaluation: Images to check the artifact on besides.
        limits: The limits that an int8 artifact keeps on them; None for other precisions.
        placement: Where the gate runs the artifact.
        report: The measurements so far.
        cause: Why numbers may be off, where that is known.
    """

    artifact: Artifact
    draft: Manifest
    golden: Golden | NetworkGolden | None
    report: Report
    pending: bool = False
    evaluation: EvaluationSet | None = None
    limits: Int8 | None = None
    cause: str | None = None
    placement: Placement = HERE


def publish(
    candidate: Candidate, target: Format, staging: Staging, progress: Progress, output: OutputOptions
) -> Export:
    """Pass ``candidate`` through the gate, complete its manifest and its report, and give the bundle its name.

    Raises:
        ParityError, AccuracyError: where its numbers are off; nothing is published then.
        BundleError: where the manifest does not describe the artifact.
        ModelError: where the format cannot hold another tool's network.
    """
    verdict, description, report = _measured(candidate, target, progress)
    manifest = _complete(candidate)
    if output.sbom:
        manifest = _with_sbom(manifest, target, candidate.artifact)
    manifest_consistency.check(manifest, description, staging.destination)
    if isinstance(manifest.spec, OnnxNetwork):
        memory.release()  # of the session: to inspect the file takes twice its size
        _check_contents(Bundle(staging.directory, manifest), target)
    size = sum((staging.directory / name).stat().st_size for name in candidate.artifact.files)
    report = report.model_copy(update={"size_bytes": size, "seconds": progress.seconds, "machine": machine.describe()})
    card = model_card(manifest, report, target, output.license) if output.card else None
    return Export(staging.publish(manifest, report, card=card, key=output.sign), verdict, report)


def _measured(
    candidate: Candidate, target: Format, progress: Progress
) -> tuple[Verdict | None, Description | None, Report]:
    """The gate's verdict on the artifact where it runs here, its description where it could be opened, and the report with both.

    Raises:
        ParityError, AccuracyError: where its numbers are off.
    """
    if candidate.golden and not candidate.pending:
        with progress.step(_step(candidate.draft, target)):
            session = open_at(target, candidate.artifact, candidate.placement)
            if execution := execution_of(session):
                candidate = _on_gpu(candidate, execution, progress)
            verdict, report = check(session, candidate)
            return verdict, description_of(session), report
    if candidate.golden and (recomputed := target.recompute(candidate.artifact)):
        with progress.step(f"recomputing the {candidate.draft.format} engine in place of its runtime"):
            _, report = check(recomputed, candidate)
            return None, description_of(recomputed), report.model_copy(update={"recomputed": True})
    return None, None, candidate.report


def _on_gpu(candidate: Candidate, execution: Execution, progress: Progress) -> Candidate:
    """``candidate`` with the record of how it runs on the GPU."""
    if execution.without_graph:
        progress.warn(f"the {candidate.draft.format} engine runs without a CUDA graph: {execution.without_graph}")
    report = candidate.report.model_copy(update={"execution": execution})
    return replace(candidate, report=report, cause=execution.why_inexact or candidate.cause)


def check(session: Session, candidate: Candidate) -> tuple[Verdict, Report]:
    """Run the gate on the artifact in ``session``; its verdict, and the report with it.

    Raises:
        ParityError, AccuracyError: where its numbers are off.
    """
    draft, report, evaluation = candidate.draft, candidate.report, candidate.evaluation
    assert candidate.golden and draft.tolerance
    if isinstance(candidate.golden, NetworkGolden):
        verdict = network_gate.require(
            network_gate.tensors_of(session), candidate.golden, draft.tolerance, candidate.cause
        )
        return verdict, report.model_copy(update={"distances": dict(verdict.distances)})
    adapter = IoAdapter.of(draft)
    verdict = gate.require(session, candidate.golden, draft.tolerance, adapter.io, candidate.cause)
    measured: dict[str, object] = {"distances": dict(verdict.distances)}
    if evaluation and candidate.limits:
        left = draft.quantization.float_layers if draft.quantization else ()
        logits = adapter.logits(session, evaluation.images, evaluation.float_logits, evaluation.files)
        trial = accuracy.assess(left, logits, evaluation, candidate.limits)
        if not trial.passed:
            raise AccuracyError(
                f"compiled for {draft.format}, the int8 graph no longer keeps {accuracy.limits(trial, candidate.limits)}, so "
                f"nothing was published: {accuracy.describe(trial)}"
            )
        measured["trials"] = (*report.trials, trial)
    elif evaluation:
        measured["images"] = check_images(session, evaluation, draft.tolerance, adapter)
    return verdict, report.model_copy(update=measured)


def _check_contents(bundle: Bundle, target: Format) -> None:
    """Inspect the bundle of another tool's network as everybody does who loads it.

    Raises:
        ModelError: where it would be refused.
    """
    try:
        target.inspect(bundle)
    except BundleError as error:
        raise ModelError(
            f"a bundle of format {target.name} cannot hold this network: {error.__cause__ or error}"
        ) from error


def _step(draft: Manifest, target: Format) -> str:
    of_engine = f" of the {draft.format} engine" if isinstance(target, Compiler) else ""
    return f"checking {draft.precision} parity{of_engine} with the reference"


def _complete(candidate: Candidate) -> Manifest:
    """The manifest of a candidate that was checked, with the hash of every file and the verdict."""
    artifact, draft = candidate.artifact, candidate.draft
    beside = [GOLDEN, *(image.file for image in draft.golden_images)] if candidate.golden else []
    files = sorted([*artifact.files, *artifact.graph, *beside])
    checked = {"verdict": "pending a device" if candidate.pending else "passed"} if candidate.golden else {}
    hashes = {name: sha256(artifact.directory / name) for name in files}
    return draft.model_copy(update={"files": hashes, **checked})


def _with_sbom(manifest: Manifest, target: Format, artifact: Artifact) -> Manifest:
    from s2mlp_deploy.bundle import sbom

    return sbom.add(manifest, artifact.directory, modules=target.modules, others=target.shipped(artifact))
