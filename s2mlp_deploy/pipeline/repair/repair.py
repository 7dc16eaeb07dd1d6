"""Repair the data movement of an ONNX file, compare the result with it bit by bit, and publish it as a bundle.

    read ─▶ repair ─▶ compare bits ─▶ weigh the recording ─▶ gate ─▶ publish

Nothing is published unless the repaired graph gives the same bits as the file. Where a recording shows that the network
was trained with the in-place shift, which no exporter writes, that shift is written; the gate then compares with the
recording.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from s2mlp_deploy.bundle import network_golden
from s2mlp_deploy.bundle.contents import GOLDEN, Artifact
from s2mlp_deploy.bundle.network_golden import NetworkGolden
from s2mlp_deploy.bundle.staging import Staging, check_destination, staged
from s2mlp_deploy.errors import ParityError, UsageError
from s2mlp_deploy.formats.onnx import FILE, OnnxFile
from s2mlp_deploy.gate import network_gate
from s2mlp_deploy.graph import onnx_file, writer
from s2mlp_deploy.passes.data_movement import Repair, repair
from s2mlp_deploy.pipeline import latency, request_checks
from s2mlp_deploy.pipeline.publish import Candidate, publish
from s2mlp_deploy.pipeline.repair import description, reading, recording, trial
from s2mlp_deploy.pipeline.repair.description import Claim
from s2mlp_deploy.pipeline.repair.reading import PLAIN, Given
from s2mlp_deploy.pipeline.repair.request import RepairRequest, RepairResult
from s2mlp_deploy.pipeline.repair.trial import Trial
from s2mlp_deploy.pipeline.request import Export
from s2mlp_deploy.runtime.onnxruntime import RESTING, Loading, OnnxSession
from s2mlp_deploy.schema.report import Evidence, RepairRecord, Report
from s2mlp_deploy.schema.shift import Reading, Semantics
from s2mlp_deploy.system import memory, workdir
from s2mlp_deploy.system.progress import Listener, Progress

GOLDEN_BYTES = 16 << 20
"""Golden tensors travel in the bundle: no more trials do than fit into this, but for one."""


def repair_file(request: RepairRequest, listener: Listener | None = None) -> RepairResult:
    """Repair the ONNX file that ``request`` names.

    Raises:
        ModelError: where it cannot be read, or cannot be run to compare the repaired graph with it.
        UsageError: where the requested semantics needs evidence, or cannot be written.
        DataError, EvidenceError: where the reference is not of this network, or contradicts the request.
        ParityError: where the repaired graph gives other bits.
        OutputError: where the bundle cannot be written.
        RuntimeMissingError, KeyFileError: where it cannot be signed, or have a bill of materials.
    """
    request_checks.check_output(request.output)
    progress = Progress(listener or Listener())
    if request.semantics == "auto" and request.reference is None:
        recording.decide("auto", None)
    workdir.sweep(request.destination.parent)
    check_destination(request.destination, replace=request.output.force)
    with progress.step("reading the model"):
        given = reading.read(request.model)
    with progress.step("looking for data movement"):
        exported = repair(given.model, prefer=request.preference)
    custom = onnx_file.custom_operators(given.model)
    if any(name.startswith(OF_ONE_PROCESSOR) for name in custom):
        progress.warn(
            f"{given.path} was optimized by ONNX Runtime for one kind of processor, which hides most of what could be repaired: give "
            "the file from before that, and let ONNX Runtime optimize the result"
        )
    if not exported.regions and request.reference is None and request.output.directory is None:
        return RepairResult(description.record(given, exported, request.preference, {}), (), custom)
    with staged(request.destination, replace=request.output.force) as staging, workdir.temporary() as scratch:
        found = _check_bits(given, exported, scratch, progress)
        chosen = _choose(request, found, scratch, progress)
        made, record = _publish(request, found, chosen, staging, progress)
    return RepairResult(record, chosen.evidence, custom, made)


OF_ONE_PROCESSOR = "com.microsoft.nchwc::"
"""Operators that ONNX Runtime writes into files that it optimized in full."""


@dataclass(frozen=True)
class _Found:
    """A file and its repair, with statements as exported, at ``path``; its bits were compared in ``trials``."""

    given: Given
    exported: Repair
    path: Path
    trials: tuple[Trial, ...]

    @property
    def restorable(self) -> dict[str, Semantics]:
        """``inplace`` for each statement whose in-place result is known."""
        return {s.name: "inplace" for s in self.exported.statements if s.reason is None}


@dataclass(frozen=True)
class _Chosen:
    """The repair to publish: the one in ``_Found``, or one with statements ``restored``; and why."""

    repaired: Repair
    path: Path
    restored: Mapping[str, Semantics]
    evidence: tuple[Evidence, ...] = ()
    recorded: Trial | None = None


def _check_bits(given: Given, exported: Repair, scratch: Path, progress: Progress) -> _Found:
    """Compare the repaired graph with the file, both without ONNX Runtime's optimizations.

    Raises:
        ParityError: where an output differs in any bit.
    """
    with progress.step("running the model as it was given"):
        memory.release()  # of reading, and from now on of every session as soon as it is gone
        trials = reading.run_as_given(given)
    with progress.step("comparing the repaired model's bits with it"):
        path = _write(exported, scratch / "exported")
        session = OnnxSession(path, PLAIN)
        for one in trials:
            if wrong := network_gate.different_bits(session.compute(one.inputs), one.outputs):
                sizes = ", ".join(f"{name} {list(shape)}" for name, shape in one.shapes.items())
                raise ParityError(
                    f"the repaired model does not give the bits of {given.path}, so nothing was published (on {sizes}: "
                    f"{'; '.join(list(wrong.values())[:3])}). Please report this with the model"
                )
    return _Found(given, exported, path, trials)


def _write(repaired: Repair, directory: Path) -> Path:
    directory.mkdir()
    writer.write(repaired.model, directory / FILE)
    return directory / FILE


def _choose(request: RepairRequest, found: _Found, scratch: Path, progress: Progress) -> _Chosen:
    """Decide which semantics the overlapping statements get.

    Raises:
        UsageError, DataError, EvidenceError: as :func:`repair_file`.
    """
    restorable = found.restorable
    as_exported = _Chosen(found.exported, found.path, {})
    if request.semantics == "inplace" and not restorable:
        raise UsageError(_nothing_to_restore(found))
    if not restorable or (request.reference is None and request.semantics != "inplace"):
        if restorable and request.semantics is None:
            progress.warn(
                f"{len(restorable)} statements shift in place, and nothing shows which shift was trained: they stay as exported, which is "
                "not what PyTorch computes for them on one thread. Give --reference, inputs and outputs recorded from your model"
            )
        if request.reference is None:
            return as_exported
    restored = as_exported
    if restorable:
        with progress.step("restoring the in-place shift"):
            repaired = repair(found.given.model, prefer=request.preference, semantics=restorable)
            restored = _Chosen(repaired, _write(repaired, scratch / "restored"), restorable)
    if request.reference is None:
        progress.warn("nothing but --shift-semantics says that the in-place shift was trained: no recording shows it")
        return restored
    evidence, recorded = _weigh(request.reference, as_exported, restored, progress)
    semantics = recording.decide(request.semantics, evidence)
    chosen = restored if semantics == "inplace" else as_exported
    return _Chosen(chosen.repaired, chosen.path, chosen.restored, (evidence,), recorded)


def _nothing_to_restore(found: _Found) -> str:
    unknown = [f"{s.name} ({s.reason})" for s in found.exported.statements]
    why = (
        f": of these it is not known: {'; '.join(unknown[:3])}"
        if unknown
        else ", as this model has no overlapping statement"
    )
    return f"--shift-semantics inplace restores statements that shift in place{why}. Leave it out"


def _weigh(reference: Path, exported: _Chosen, restored: _Chosen, progress: Progress) -> tuple[Evidence, Trial]:
    with progress.step("comparing the reference with each reading of the statements"):
        session = OnnxSession(exported.path)
        known = session.describe()
        recorded = recording.read(reference, known.inputs, known.outputs)
        if restored is exported:
            return recording.weigh({"none": recording.distance(recorded, session)}, recorded), recorded
        measured: dict[Reading, float] = {"paper": recording.distance(recorded, session)}
        del session  # two would hold the weights twice
        memory.release()
        measured["inplace"] = recording.distance(recorded, OnnxSession(restored.path))
        return recording.weigh(measured, recorded), recorded


def _publish(
    request: RepairRequest, found: _Found, chosen: _Chosen, staging: Staging, progress: Progress
) -> tuple[Export, RepairRecord]:
    """Pass the chosen repair through the gate, with ONNX Runtime's optimizations on, and publish it."""
    files = writer.write(chosen.repaired.model, staging.directory / FILE)
    artifact = Artifact(staging.directory, FILE, files)
    with progress.step("measuring how far rounding moves its outputs"):
        claim = _claim(found, chosen, artifact)
    network_golden.save(claim.golden, staging.directory / GOLDEN)
    known = OnnxSession(artifact.path, PLAIN).describe()
    manifest = description.draft(found.given, chosen.repaired, known, claim, request.preference)
    record = description.record(found.given, chosen.repaired, request.preference, chosen.restored)
    record = record.model_copy(update={"compared": tuple(one.shapes for one in found.trials)})
    if request.latency:
        with progress.step("timing the model and its repair"):
            record = record.model_copy(update=_timed(found, artifact))
    report = Report(evidence=chosen.evidence, repair=record)
    candidate = Candidate(artifact, manifest, claim.golden, report)
    return publish(candidate, OnnxFile(), staging, progress, request.output), record


def _claim(found: _Found, chosen: _Chosen, artifact: Artifact) -> Claim:
    """What the artifact is held to, and how far rounding may move it: as far as ONNX Runtime's own optimizations, and inputs that
    move by one rounding, move the model's outputs."""
    statements = found.exported.statements
    shift: Semantics | None = ("inplace" if chosen.restored else "paper") if statements else None
    plain = OnnxSession(artifact.path, PLAIN)
    trials = found.trials
    if chosen.restored:
        trials = tuple(Trial(one.inputs, plain.compute(one.inputs)) for one in trials)
    distances = [network_gate.worst(plain.compute(trial.moved_by_rounding(trials[0].inputs)), trials[0].outputs)]
    if recorded := chosen.recorded:
        distances.append(network_gate.worst(plain.compute(recorded.inputs), recorded.outputs))
    del plain  # two sessions would hold the weights twice
    memory.release()
    fused = OnnxSession(artifact.path)
    distances += [network_gate.worst(fused.compute(one.inputs), one.outputs) for one in trials[:1]]
    cases = dict(_small_enough(trials)) if not (chosen.restored and recorded) else {}
    if recorded:
        cases["recording"] = recorded
    golden = NetworkGolden(
        {case: one.inputs for case, one in cases.items()}, {case: one.outputs for case, one in cases.items()}
    )
    finite = max(distances)
    tolerance = description.precision_of(chosen.repaired.model).rule.tolerance(finite)
    source = "recording" if recorded else "itself" if chosen.restored else "model"
    return Claim(golden, source, tolerance, shift)  # type: ignore[arg-type]


def _small_enough(trials: Sequence[Trial]) -> list[tuple[str, Trial]]:
    """As many of ``trials`` as fit into GOLDEN_BYTES, the smallest first, by case."""
    total, kept = 0, list[tuple[str, Trial]]()
    for one in sorted(trials, key=_bytes):
        total += _bytes(one)
        if not kept or total <= GOLDEN_BYTES:
            kept.append((f"noise-{len(kept)}", one))
    return kept


def _bytes(one: Trial) -> int:
    return sum(array.nbytes for array in (*one.inputs.values(), *one.outputs.values()))


def _timed(found: _Found, artifact: Artifact) -> dict[str, object]:
    """The latency of the file and of its repair, both with ONNX Runtime's optimizations, in turns."""
    loading = Loading(config=RESTING)
    inputs = min(found.trials, key=_bytes).inputs
    sessions = {"before": OnnxSession(found.given.path, loading), "after": OnnxSession(artifact.path, loading)}
    (before, after), rounds = latency.in_turns({n: partial(s.compute, inputs) for n, s in sessions.items()})
    return {
        "milliseconds": (before.milliseconds.median, after.milliseconds.median),
        "times_faster": (after.speed.median, after.speed.low, after.speed.high),
        "rounds": rounds,
    }
