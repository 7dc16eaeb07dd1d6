"""Whether int8 pays on this machine's GPU: race the artifact against float16, and warn where it wins nothing.

The float16 artifact is compiled of the same graph with its quantization taken out, so that neither the checkpoint nor PyTorch is
needed.
"""

from __future__ import annotations

import shutil
import time
from functools import partial
from pathlib import Path

import onnx_ir as ir

from s2mlp_deploy.bundle.contents import GOLDEN, Bundle
from s2mlp_deploy.errors import Error
from s2mlp_deploy.formats.base import Compiler, open_at
from s2mlp_deploy.graph import onnx_file, writer
from s2mlp_deploy.passes.dequantize import Dequantize
from s2mlp_deploy.passes.float16 import ToFloat16
from s2mlp_deploy.passes.io_type import CastIo
from s2mlp_deploy.passes.run_passes import run_passes
from s2mlp_deploy.pipeline.latency import images_for
from s2mlp_deploy.pipeline.request import ExportRequest
from s2mlp_deploy.pipeline.tune.race import MARGIN, Race, Standing
from s2mlp_deploy.schema.manifest import FLOAT_LOGITS
from s2mlp_deploy.schema.precision import FP16, INT8
from s2mlp_deploy.system import memory, workdir
from s2mlp_deploy.system.progress import Progress
from s2mlp_deploy.system.timing import Clock

SECONDS = 5.0
"""The longest race."""


def warn_without_gain(
    graph: Bundle,
    made: Bundle,
    target: Compiler,
    request: ExportRequest,
    progress: Progress,
    clock: Clock = time.perf_counter,
) -> None:
    """Warn where ``made``, an int8 artifact that ``target`` compiled of the ONNX bundle ``graph``, is not shown to be faster than float16.

    Only artifacts for a GPU that is here are timed. A comparison that fails is a warning, too: ``made`` is published already.
    """
    options = request.options_of(target)
    wanted = request.evidence.time_int8 and request.precision.row.calibrated
    if not (wanted and target.for_gpu(options) and target.variants()):
        return
    if target.cannot_run(options):
        return
    if graph.manifest.interface != FLOAT_LOGITS:
        progress.warn(
            "whether int8 is faster than fp16 on this GPU was not measured, since that takes prepared images and logits: leave out --input and "
            "--answer to find out"
        )
        return
    try:
        with progress.step("timing int8 against fp16, interleaved"), workdir.temporary() as place:
            standing, batch = _race(graph, made, target, options, place, clock)
    except Error as error:
        progress.warn(f"whether int8 is faster than fp16 on this GPU could not be measured: {error}")
        return
    if not standing.is_slower(FP16.name, INT8.name):
        int8, fp16 = (standing.milliseconds(name).median for name in (INT8.name, FP16.name))
        progress.warn(
            f"int8 takes {int8:.3g} ms for a batch of {batch} on this GPU and fp16 {fp16:.3g} ms: int8 is not at least {MARGIN - 1:.0%} faster, so "
            "take --precision fp16, which is more exact"
        )


def _race(
    graph: Bundle, made: Bundle, target: Compiler, options: object, place: Path, clock: Clock
) -> tuple[Standing, int]:
    """The race of both artifacts, and the batch that they ran."""
    (place / "graph").mkdir()
    (place / "engine").mkdir()
    float16 = target.compile(without_quantization(graph, place / "graph"), place / "engine", options)
    memory.release()
    batch = graph.manifest.batch or 1
    images, _ = images_for([made], batch)
    artifacts, placement = {INT8.name: made.artifact, FP16.name: float16}, target.placement(options)
    sessions = {name: open_at(target, artifact, placement) for name, artifact in artifacts.items()}
    calls = {name: partial(session.run, images) for name, session in sessions.items()}
    return Race(calls, SECONDS, clock).run(), batch


def without_quantization(bundle: Bundle, directory: Path) -> Bundle:
    """The int8 ONNX ``bundle`` in float16, written into the empty ``directory``; its numbers are not those of the checkpoint."""
    manifest = bundle.manifest
    model = run_passes(onnx_file.read(bundle.artifact.path), Dequantize())
    if manifest.arithmetic != FP16.on_gpu.outputs:
        model = run_passes(model, ToFloat16(), CastIo(ir.DataType.FLOAT))
    files = writer.write(model, directory / manifest.artifact)
    beside = [name for name in (GOLDEN,) if name in manifest.files]
    for name in beside:
        shutil.copyfile(bundle.directory / name, directory / name)
    stated = {
        "precision": FP16.name,
        "arithmetic": FP16.on_gpu.outputs,
        "quantization": None,
        "files": dict.fromkeys([*files, *beside], ""),
    }
    return Bundle(directory, manifest.model_copy(update=stated))
