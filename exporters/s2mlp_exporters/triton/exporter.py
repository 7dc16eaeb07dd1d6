"""``--format triton``: a model for Triton Inference Server, as its model repositories hold it.

The bundle's directory is the entry: put it into a repository, or give the directory around it to tritonserver. It
holds ``config.pbtxt``, the labels, and the model as ``1/model.onnx``, which is judged in ONNX Runtime, as Triton's
backend onnxruntime runs it; or as ``1/model.plan``, an engine that ``--format trt`` builds.
"""

from __future__ import annotations

import re
import reprlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import ValidationError

from s2mlp_deploy.bundle.contents import Artifact, Bundle
from s2mlp_deploy.errors import BundleError, UsageError
from s2mlp_deploy.formats import base as formats_base
from s2mlp_deploy.formats import onnx_scan, registry
from s2mlp_deploy.formats.base import Compiler
from s2mlp_deploy.formats.settings import recorded
from s2mlp_deploy.pipeline.request import flags
from s2mlp_deploy.runtime.onnxruntime import REMEDY, RESTING, Loading, OnnxSession, missing
from s2mlp_deploy.runtime.session import Session
from s2mlp_deploy.schema.manifest import Setting
from s2mlp_exporters.triton import config
from s2mlp_exporters.triton.config import FILES, VERSION, Serving, Signature

CONFIG, LABELS = "config.pbtxt", "labels.txt"

MAX_BATCH = 8
"""The largest batch that Triton makes, where the model takes any and nothing else is asked for."""

BATCHING = ("max_batch", "preferred_batch", "queue_delay_us")
"""The settings that say how Triton makes batches."""

_ENGINE = "engine."
"""What the manifest puts before the settings of the TensorRT engine in an entry."""

_LINE_BREAKS = re.compile("[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")


class TritonRepository:
    """Writes an entry for a model repository, and runs its model."""

    precisions: tuple[str, ...] = ("fp32", "fp16", "int8")
    targets: tuple[str, ...] = ("x86", "arm", "trt")
    options: tuple[str, ...] = ("instances", *BATCHING, "triton_backend")
    modules: tuple[str, ...] = ("onnxruntime",)
    remedy = REMEDY
    elsewhere = ""

    def cannot_compile(self, settings: Mapping[str, Setting]) -> str | None:
        """That what judges the model is not here; or why TensorRT cannot build an engine."""
        return _tensorrt().cannot_compile({}) if _for_tensorrt(settings) else missing("cpu")

    def cannot_run(self, settings: Mapping[str, Setting]) -> str | None:
        """Why the model cannot be judged where it is to run: on the CPU, or on a GPU."""
        if _for_tensorrt(settings):
            return _tensorrt().cannot_run({})
        provider = "cuda" if str(settings.get("instances", "")).startswith("gpu:") else "cpu"
        reason = missing(provider)
        return reason.partition(": ")[0] if reason else None

    def compile(self, bundle: Bundle, destination: Path, settings: Mapping[str, Setting]) -> Artifact:
        """Write the entry for the bundle's model.

        Raises:
            UsageError: for settings that Triton, or this model, does not allow for.
            RuntimeMissingError: where TensorRT is to build an engine, and cannot.
        """
        try:
            model = config.signature(bundle.artifact.path)
        except ValueError as error:
            raise UsageError(
                f"{bundle.artifact.main}: {error}, which Triton cannot be told: export it again"
            ) from error
        serving = _choose(model, settings, bundle)
        (destination / VERSION).mkdir()
        main = f"{VERSION}/{FILES[serving.backend]}"
        record: dict[str, Setting] = {
            **serving.model_dump(),
            "preferred_batch": tuple(map(str, serving.preferred_batch)),
        }
        labels = _write_labels(bundle, destination / LABELS)
        classes = bundle.manifest.spec.classes if labels else None
        (destination / CONFIG).write_text(config.text(model, serving, classes=classes, labels=LABELS), "utf-8")
        files = (main, CONFIG, *labels)
        if serving.backend == "onnxruntime":
            shutil.copyfile(bundle.artifact.path, destination / main)
            return Artifact(destination, main, files, record)
        engine = _build(bundle, destination, serving)
        record |= {f"{_ENGINE}{name}": value for name, value in engine.settings.items()}
        return Artifact(destination, main, files, record, engine.graph, engine.report)

    def on_gpu(self, settings: Mapping[str, Setting]) -> bool:
        """As :meth:`OnGpus.on_gpu`: settings that are asked for say where by ``instances``, those recorded by ``kind``."""
        place = str(settings.get("kind", settings.get("instances", "cpu")))
        return place.startswith("gpu") or "tensorrt" in (settings.get("triton_backend"), settings.get("backend"))

    def inspect(self, bundle: Bundle) -> None:
        """As :meth:`Inspected.inspect`."""
        serving = _recorded(bundle.artifact)
        main = f"{VERSION}/{FILES[serving.backend]}"
        formats_base.refuse_other_files(bundle, main, CONFIG)
        for name in (main,) if serving.backend == "onnxruntime" else bundle.manifest.graph[:1]:
            onnx_scan.inspect(bundle, name)
        _check_config(bundle.artifact, serving)

    def open(self, artifact: Artifact) -> Session:
        """Load the model, after a look at whether its configuration is the one for it.

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
            return OnnxSession(artifact.path, Loading(provider, threads=threads, config=RESTING))
        if threads is not None:
            raise UsageError("--threads: engines of TensorRT have no threads to set")
        own = {name.removeprefix(_ENGINE): v for name, v in artifact.settings.items() if name.startswith(_ENGINE)}
        return _tensorrt().open(Artifact(artifact.directory, artifact.main, (artifact.main,), own, artifact.graph))

    def versions(self) -> Mapping[str, str]:
        """Nothing but this package decides the bytes; an engine's settings say what built it."""
        return {}


def _tensorrt() -> Compiler:
    target = registry.find("trt")
    assert isinstance(target, Compiler)
    return target


def _for_tensorrt(settings: Mapping[str, Setting]) -> bool:
    return settings.get("triton_backend") == "tensorrt"


def _choose(model: Signature, settings: Mapping[str, Setting], bundle: Bundle) -> Serving:
    """The settings, completed and found to fit each other and the model.

    Raises:
        UsageError: where they do not.
    """
    given = [name for name in BATCHING if name in settings]
    if given and not model.is_free_batch:
        raise UsageError(
            f"{flags(given)}: the model has a fixed batch, and Triton makes batches only for models that take any: leave out, or "
            "export the checkpoint with --batch dynamic"
        )
    backend = settings.get("triton_backend", "onnxruntime")
    kind, given_kind, count = str(settings.get("instances", "1")).rpartition(":")
    try:
        serving = Serving.model_validate(
            {
                "backend": backend,
                "max_batch": settings.get("max_batch", MAX_BATCH if model.is_free_batch else 0),
                "preferred_batch": settings.get("preferred_batch", ()),
                "queue_delay_us": settings.get("queue_delay_us", 0),
                "kind": kind if given_kind else "gpu" if backend == "tensorrt" else "cpu",
                "instances": count,
            }
        )
    except ValidationError as error:
        first = error.errors()[0]
        name = {"backend": "triton_backend", "kind": "instances"}.get(str(first["loc"][0]), str(first["loc"][0]))
        raise UsageError(f"{flags([name])} {reprlib.repr(first['input'])}: {first['msg']}") from error
    if "max_batch" in given and serving.max_batch == 0:
        raise UsageError("--max-batch 0: expected 1 or more; with 1, Triton passes requests on one by one")
    if serving.max_batch == 1 and (idle := [name for name in given if name != "max_batch"]):
        raise UsageError(f"{flags(idle)}: with --max-batch 1 there are no batches to make: leave out one of them")
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
    """The engine, as ``1/model.plan``, and what ``--format trt`` says of it; the graph goes to the top of the entry."""
    target, recipe = _tensorrt(), bundle.manifest.quantization
    if recipe and recipe.target not in target.targets:
        raise UsageError(
            f"--triton-backend tensorrt: the graph is quantized for {recipe.target}: export the checkpoint with --target "
            + " or ".join(target.targets)
        )
    usual = max(serving.preferred_batch, default=serving.max_batch)
    profile: dict[str, Setting] = {"batch": f"1:{usual}:{serving.max_batch}"} if serving.max_batch else {}
    with TemporaryDirectory(dir=destination, prefix=".") as place:
        made = target.compile(bundle, Path(place), profile)
        made.path.rename(destination / VERSION / FILES["tensorrt"])
        for name in made.graph:
            (made.directory / name).rename(destination / name)
    return made


def _write_labels(bundle: Bundle, path: Path) -> tuple[str, ...]:
    """One label a line, where each logit has its class's name; returns the names of the files written."""
    labels = bundle.manifest.labels
    if (
        not labels or bundle.manifest.spec.classes == 1
    ):  # one logit names two classes, and Triton takes a label for each value
        return ()
    if odd := [label for label in labels if _LINE_BREAKS.search(label)]:
        raise UsageError(
            f"the label {odd[0]!r} goes over several lines, and Triton takes one a line: give the class another name"
        )
    path.write_text("".join(f"{label}\n" for label in labels), "utf-8", newline="\n")
    return (path.name,)


def _check_config(artifact: Artifact, serving: Serving) -> None:
    """That the configuration is the one for the model's inputs and outputs, and for what the manifest records."""
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
