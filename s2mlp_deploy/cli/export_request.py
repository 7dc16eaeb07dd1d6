"""The precisions of ``s2mlp-export``, each with those of the flags that belong to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from s2mlp_deploy.bundle import signature
from s2mlp_deploy.bundle.read import read_manifest
from s2mlp_deploy.errors import UsageError
from s2mlp_deploy.pipeline.request import Source, flags
from s2mlp_deploy.quantization.settings import OPTIONS, Int8, PrecisionOptions
from s2mlp_deploy.schema.precision import FP32, PRECISIONS, Precision, having


def precisions(source: Source, names: Sequence[str] | None, given: Mapping[str, Any]) -> list[PrecisionOptions]:
    """The options of each precision in ``names``; without names, of the bundle's own, or of fp32.

    ``given`` has the value of each flag that is for some precisions only, by the name of its field.

    Raises:
        UsageError: for an unknown precision, or a flag for another one.
        BundleError: where the source is a bundle whose manifest cannot be read, or not signed as it must be.
    """
    if source.publisher and source.is_bundle:
        signature.check(source.path, source.publisher)  # before its manifest is read
    names = names or [read_manifest(source.path).precision if source.is_bundle else FP32.name]
    if unknown := [name for name in names if name not in PRECISIONS]:
        raise UsageError(f"--precision {unknown[0]!r}: expected {', '.join(PRECISIONS)}")
    _check_flags([PRECISIONS[name] for name in names], given)
    return [OPTIONS[name](**{field.name: given[field.name] for field in fields(OPTIONS[name])}) for name in names]


def _check_flags(chosen: Sequence[Precision], given: Mapping[str, Any]) -> None:
    """Refuse a flag that has no effect at any of the precisions chosen."""
    io_type = PRECISIONS[given["io_dtype"]].on_gpu.inputs
    if not any(io_type in row.io_types for row in chosen):
        raise UsageError(
            f"--io-dtype {given['io_dtype']} is for --precision {having(lambda row: io_type in row.io_types)}"
        )
    if given["target"] and not any(row.targets for row in chosen):
        raise UsageError(f"--target is for --precision {having(lambda row: row.targets)}")
    of_int8 = (field.name for field in fields(Int8) if field.name != "target")
    idle = [name for name in of_int8 if given[name] != getattr(Int8(), name)]
    if idle and not any(row.calibrated for row in chosen):
        raise UsageError(f"{flags(idle)}: only for --precision {having(lambda row: row.calibrated)}")
