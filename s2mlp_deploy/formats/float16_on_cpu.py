"""Float16 graphs in ONNX Runtime on a CPU: the least release, and the processors with inexact sums.

Graphs that have float16 weights alone compute in float32 (schema/precision.py) and are not concerned.
"""

from __future__ import annotations

from s2mlp_deploy.bundle.contents import Bundle
from s2mlp_deploy.errors import RuntimeMissingError
from s2mlp_deploy.formats.base import Format
from s2mlp_deploy.runtime import onnxruntime_versions
from s2mlp_deploy.schema.manifest import Manifest
from s2mlp_deploy.schema.precision import precision
from s2mlp_deploy.system import machine


def adds_up_in_float16() -> bool:
    """Whether ONNX Runtime sums float16 products in float16 here: on ARM processors with such arithmetic.

    GPUs, and ONNX Runtime on other processors, add up in float32, which is some ten times as exact (docs/numerics.md).
    """
    return "asimdhp" in machine.features()


def refuse_old(bundle: Bundle, target: Format) -> None:
    """Refuse a float16 ``bundle`` of format ``target`` where the installed ONNX Runtime is too old for it.

    Raises:
        RuntimeMissingError: with the least release.
    """
    if _concerns(bundle.manifest, target, on_gpu=target.on_gpu(bundle.artifact)) and (
        reason := onnxruntime_versions.too_old("float16")
    ):
        raise RuntimeMissingError(f"{bundle.directory} computes in float16: {reason}")


def why_inexact(manifest: Manifest, target: Format, *, on_gpu: bool) -> str | None:
    """Why the artifact may exceed its tolerance here, and a better choice; None where no cause is known."""
    if not (_concerns(manifest, target, on_gpu=on_gpu) and adds_up_in_float16()):
        return None
    return (
        "the graph computes in float16, as GPUs do best, and on this processor ONNX Runtime also adds up in float16: for CPUs export "
        "the checkpoint with --precision fp16 --target arm, whose products are float32"
    )


def _concerns(manifest: Manifest, target: Format, *, on_gpu: bool) -> bool:
    """Whether an artifact computes in float16, and runs in ONNX Runtime on the CPU."""
    sums_in_float16 = precision(manifest.precision).read(manifest.arithmetic).sums_in_float16
    return sums_in_float16 and "onnxruntime" in target.modules and not on_gpu
