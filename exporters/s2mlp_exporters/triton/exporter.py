"""``--format triton``: a model for Triton Inference Server, as its model repositories hold it.

The bundle's directory is the entry: put it into a repository, or give the directory around it to tritonserver. It
holds ``config.pbtxt``, the labels, and the model as ``1/model.onnx``, which is checked in ONNX Runtime, as Triton's
backend onnxruntime runs it; or as ``1/model.plan``, an engine that ``--format trt`` builds.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from s2mlp_deploy.bundle import golden_tensors
from s2mlp_deploy.bundle.contents import GOLDEN, Artifact, Bundle
from s2mlp_deploy.errors import BundleError, UsageError
from s2mlp_deploy.formats import onnx_scan, registry
from s2mlp_deploy.formats.base import Compiler, refuse_other_files
from s2mlp_deploy.formats.settings import recorded
from s2mlp_deploy.runtime.onnxruntime import REMEDY, RESTING, Loading, missing
from s2mlp_deploy.runtime.opening import open_session
from s2mlp_deploy.runtime.session import Session
from s2mlp_deploy.schema.manifest import Setting
from s2mlp_deploy.schema.precision import ON_CPUS
from s2mlp_exporters.triton import config, perf
from s2mlp_exporters.triton.config import FILES, VERSION, Serving, Signature
from s2mlp_exporters.triton.options import TritonOptions

CONFIG, LABELS = "config.pbtxt", "labels.txt"

MAX_BATCH = 8
"""The largest batch that Triton makes, where the model takes any and no other is given."""

BATCHING = ("max_batch", "preferred_batch", "queue_delay_us")
"""The options of Triton's batching."""

_ENGINE = "engine."
"""What the manifest puts before the settings of the TensorRT engine in an entry."""

_LINE_BREAKS = re.compile("[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")


class TritonRepository(Compiler):
    """Writes an entry for a model repository, and runs its model."""

    name = "triton"
    precisions = ON_CPUS
    options = TritonOptions
    modules = ("onnxruntime",)
    install_hint = REMEDY

    def cannot_compile(self, options: TritonOptions) -> str | None:
        """The reason where onnxruntime, which checks the model, is missing, or TensorRT cannot build an engine."""
        if options.triton_backend == "tensorrt":
            engines = _tensorrt()
            return engines.cannot_compile(engines.options())
        return missing("cpu")

    def cannot_run(self, options: TritonOptions) -> str | None:
        """Why the model cannot be checked where it is to run: on the CPU, or on a GPU."""
        if options.triton_backend == "tensorrt":
            engines = _tensorrt()
            return engines.cannot_run(engines.options())
        reason = missing("cuda" if options.kind == "gpu" else "cpu")
        return reason.partition(": ")[0] if reason else None

    def variants(self) -> tuple[Mapping[str, Any], ...]:
        """None: a server runs it, with its own batches."""
        return ()

    def compile(self, bundle: Bundle, destination: Path, options: TritonOptions) -> Artifact:
        """Write the entry for the bundle's model.

        Raises:
            UsageError: for options that Triton, or this model, does not allow for.
            RuntimeMissingError: where TensorRT is to build an engine, and cannot.
        """
        try:
            model = config.signature(bundle.artifact.path)
        except ValueError as error:
            raise UsageError(
                f"{bundle.artifact.main}: {error}, which Triton's configuration cannot express: export it again"
            ) from error
        serving = _choose(model, options, bundle)
        (destination / VERSION).mkdir()
        main = f"{VERSION}/{FILES[serving.backend]}"
        record: dict[str, Setting] = {
            **serving.model_dump(),
            "preferred_batch": tuple(map(str, serving.preferred_batch)),
        }
        labels = _write_labels(bundle, destination / LABELS)
        classes = bundle.manifest.classifier.classes if labels else None
        (destination / CONFIG).write_text(config.text(model, serving, classes=classes, labels=LABELS), "utf-8")
        measuring = _write_perf(bundle, model, serving, destination) if options.perf_data else ()
        files = (main, CONFIG, *labels, *measuring)
        if serving.backend == "onnxruntime":
            shutil.copyfile(bundle.artifact.path, destination / main)
            return Artifact(destination, main, files, record)
        engine = _build(bundle, destination, serving)
        record |= {f"{_ENGINE}{name}": value for name, value in engine.settings.items()}
        return Artifact(destination, main, files, record, engine.graph, engine.report)

    def for_gpu(self, options: TritonOptions) -> bool:
        """Whether the model is to run on a GPU, as engines of TensorRT always do."""
        return options.kind == "gpu" or options.triton_backend == "tensorrt"

    def on_gpu(self, artifact: Artifact) -> bool:
        """Whether the recorded kind of instances, or the backend, is for GPUs."""
        return artifact.settings.get("kind") == "gpu" or artifact.settings.get("backend") == "tensorrt"

    def inspect(self, bundle: Bundle) -> None:
        """Refuse an artifact that is not one of this format, or could do more than compute."""
        serving = _recorded(bundle.artifact)
        main = f"{VERSION}/{FILES[serving.backend]}"
        refuse_other_files(bundle, main, CONFIG)
        for name in (main,) if serving.backend == "onnxruntime" else bundle.manifest.graph[:1]:
            onnx_scan.inspect(bundle, name)
        _check_config(bundle.artifact, serving)
        _check_perf(bundle, serving)

    def open(self, artifact: Artifact) -> Session:
        """Load the model, after checking that its configuration is the one for it.

        Raises:
            RuntimeMissingError: where what runs it is not here.
            BundleError: where it cannot be loaded, or the configuration or the settings are not what ``compile`` writes.
        """
        return self.open_with_threads(artifact, None)

    def open_with_threads(self, artifact: Artifact, threads: int | None) -> Session:
        """The same, on ``threads`` threads that rest between runs.

        Raises:
            UsageError: for ``threads`` of an engine, which has none.
        """
        serving = _recorded(artifact)
        _check_config(artifact, serving)
        if serving.backend == "onnxruntime":
            provider = "cuda" if serving.kind == "gpu" else "cpu"
            return open_session(artifact.path, Loading(provider, threads=threads, config=RESTING))
        if threads is not None:
            raise UsageError("--threads: engines of TensorRT have no threads to set")
        own = {name.removeprefix(_ENGINE): v for name, v in artifact.settings.items() if name.startswith(_ENGINE)}
        return _tensorrt().open(Artifact(artifact.directory, artifact.main, (artifact.main,), own, artifact.graph))

    def versions(self) -> Mapping[str, str]:
        """Nothing but this package decides the bytes; an engine's settings name its builder."""
        return {}


def _tensorrt() -> Compiler:
    target = registry.find("trt")
    assert isinstance(target, Compiler)
    return target


def _flags(options: list[str]) -> str:
    return registry.flags("triton", *options)


def _choose(model: Signature, options: TritonOptions, bundle: Bundle) -> Serving:
    """The options with defaults that fit the model, after checking that they fit each other.

    Raises:
        UsageError: where they do not.
    """
    given = [name for name in BATCHING if name in options.given]
    if given and not model.is_free_batch:
        raise UsageError(
            f"{_flags(given)}: the model has a fixed batch, and Triton makes batches only for models that take any: leave out, or "
            "export the checkpoint with --batch dynamic"
        )
    free = MAX_BATCH if model.is_free_batch else 0
    serving = Serving(
        backend=options.triton_backend,
        max_batch=free if options.max_batch is None else options.max_batch,
        preferred_batch=options.preferred_batch,
        queue_delay_us=options.queue_delay_us,
        kind=options.kind,
        instances=int(options.instances.rpartition(":")[2]),
    )
    if serving.max_batch == 1 and (idle := [name for name in given if name != "max_batch"]):
        raise UsageError(f"{_flags(idle)}: with --max-batch 1 there are no batches to make: leave out one of them")
    if any(size > serving.max_batch for size in serving.preferred_batch):
        raise UsageError(
            f"--preferred-batch {','.join(map(str, serving.preferred_batch))}: larger than --max-batch {serving.max_batch}"
        )
    if serving.backend == "tensorrt" and serving.kind == "cpu":
        raise UsageError("--instances: engines of TensorRT run on GPUs alone: give gpu:N")
    if len(bundle.artifact.files) > 1:
        raise UsageError(
            "the model keeps its weights in a file beside it, which Triton wants laid out otherwise: this release does not write "
            "that. Use --precision fp16 or int8, where the model then fits into one file"
        )
    return serving


def _build(bundle: Bundle, destination: Path, serving: Serving) -> Artifact:
    """The engine, as ``1/model.plan``, and its settings; the graph goes to the top of the entry."""
    target, recipe = _tensorrt(), bundle.manifest.quantization
    if recipe and recipe.target not in target.targets:
        raise UsageError(
            f"--triton-backend tensorrt: the graph is quantized for {recipe.target}: export the checkpoint with --target "
            + " or ".join(target.targets)
        )
    usual = max(serving.preferred_batch, default=serving.max_batch)
    profile = {"batch": f"1:{usual}:{serving.max_batch}"} if serving.max_batch else {}
    with TemporaryDirectory(dir=destination, prefix=".") as place:
        made = target.compile(bundle, Path(place), target.options.model_validate(profile))
        made.path.rename(destination / VERSION / FILES["tensorrt"])
        for name in made.graph:
            (made.directory / name).rename(destination / name)
    return made


def _write_labels(bundle: Bundle, path: Path) -> tuple[str, ...]:
    """One label a line, where each logit has its class's name; returns the names of the files written."""
    labels = bundle.manifest.labels
    if (
        not labels or bundle.manifest.classifier.classes == 1
    ):  # one logit names two classes, and Triton takes a label for each value
        return ()
    if odd := [label for label in labels if _LINE_BREAKS.search(label)]:
        raise UsageError(
            f"the label {odd[0]!r} goes over several lines, and Triton takes one a line: give the class another name"
        )
    path.write_text("".join(f"{label}\n" for label in labels), "utf-8", newline="\n")
    return (path.name,)


def _write_perf(bundle: Bundle, model: Signature, serving: Serving, destination: Path) -> tuple[str, ...]:
    """Write the files of perf.py, and return their names."""
    if GOLDEN not in bundle.manifest.files:
        raise UsageError(
            f"{_flags(['perf_data'])}: {bundle.directory} was exported with --no-gate or synthetic calibration and holds no golden inputs: leave it "
            "out, or export the checkpoint again without"
        )
    for name, text in perf.texts(model, serving, golden_tensors.load(bundle.golden)).items():
        (destination / name).write_text(text, "utf-8", newline="\n")
    return perf.FILES


def _check_perf(bundle: Bundle, serving: Serving) -> None:
    """Check that the files for perf_analyzer, where the bundle has any, are those of its golden inputs."""
    artifact = bundle.artifact
    if not set(perf.FILES) & set(artifact.files):
        return
    graph = artifact.directory / artifact.graph[0] if artifact.graph else artifact.path
    refuse_other_files(bundle, artifact.main, *perf.FILES)
    for name, expected in perf.texts(config.signature(graph), serving, golden_tensors.load(bundle.golden)).items():
        if (bundle.directory / name).read_text("utf-8") != expected:
            raise BundleError(
                f"{bundle.directory / name} does not hold the golden inputs: the bundle was changed; copy it again"
            )


def _check_config(artifact: Artifact, serving: Serving) -> None:
    """Check that the configuration is the one for the model's inputs and outputs, and for the manifest's settings."""
    graph = artifact.directory / artifact.graph[0] if artifact.graph else artifact.path
    try:
        labels = artifact.directory / LABELS
        classes = len(labels.read_text("utf-8").splitlines()) if LABELS in artifact.files else None
        expected = config.text(config.signature(graph), serving, classes=classes, labels=LABELS)
        found = (artifact.directory / CONFIG).read_text("utf-8")
    except (ValueError, OSError) as error:
        raise BundleError(f"{artifact.directory} holds no entry for Triton: {error}. Copy the bundle again") from error
    if found != expected:
        raise BundleError(
            f"{artifact.directory / CONFIG} is not the configuration of the model beside it: the bundle was changed; copy it again, "
            "or export it with the settings that you want"
        )


def _recorded(artifact: Artifact) -> Serving:
    return recorded(artifact, Serving, {n: v for n, v in artifact.settings.items() if not n.startswith(_ENGINE)})
