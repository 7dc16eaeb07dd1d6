"""The functions of ``import s2mlp_deploy``. Paths may be strings, and messages name fields and parameters, not the commands' options."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from s2mlp_deploy.errors import Error
from s2mlp_deploy.pipeline.request import (
    FLAGS,
    EvidenceOptions,
    Export,
    ExportRequest,
    FormatOptions,
    GraphOptions,
    OutputOptions,
    Source,
)
from s2mlp_deploy.quantization.settings import Float16, Int8
from s2mlp_deploy.system.progress import Listener

if TYPE_CHECKING:  # needs torch, and checking a bundle does not
    from s2mlp_deploy.bundle.contents import Bundle
    from s2mlp_deploy.bundle.signature import TrustedKey
    from s2mlp_deploy.checkpoint.load import Checkpoint
    from s2mlp_deploy.families.layouts import Layout
    from s2mlp_deploy.pipeline.tune.request import TuneRequest
    from s2mlp_deploy.pipeline.tune.tune import TuneResult
    from s2mlp_deploy.pipeline.verify import Verification
    from s2mlp_deploy.runtime.session import Placement
    from s2mlp_deploy.schema.shift import Offset, Semantics
    from s2mlp_deploy.schema.size import Size

AnyPath: TypeAlias = str | os.PathLike[str]

_PARTS = {
    "source": Source,
    "graph": GraphOptions,
    "precision": Float16,
    "format": FormatOptions,
    "evidence": EvidenceOptions,
    "output": OutputOptions,
}


def _names() -> dict[str, str]:
    """The field that each option stands for, as in ``evidence.data``."""
    found: dict[str, str] = {}
    for part, kind in (*_PARTS.items(), ("precision", Int8)):
        for f in fields(kind):
            option = FLAGS.get(f.name, f"--{f.name.replace('_', '-')}")
            found[option] = f"{part}.{f.name}" + ("=True" if f.default is False else "")
    return {
        **found,
        "--no-gate": "evidence.gate=False",
        "--input": "graph.interface.input",
        "--answer": "graph.interface.output",
        "-o": "output.directory",
        "--key": "source.publisher.key",
        "--certificate": "source.publisher.certificate",
    }


_FIELDS = _names()
"""Options of ``s2mlp-export`` and the fields of a request that they stand for."""

_PUBLISHER = {
    "--key": "publisher.key",
    "--certificate": "publisher.certificate",
    "--require-signature": "require_signature",
}

_PLACEMENT = {f"--{name}": f"placement.{name}" for name in ("provider", "device", "tf32")}

_TUNE = {
    "--max-accuracy-drop": "limits.accuracy_drop",
    "--max-latency": "limits.latency_ms",
    "--max-size": "limits.size_bytes",
    "--max-memory": "limits.memory_bytes",
    "--formats": "space.formats",
    "--precisions": "space.precisions",
    "--lowerings": "space.lowerings",
    "--calibration": "int8.calibration",
}
"""Options of ``s2mlp-tune`` and the fields of its request."""

_OPTION = re.compile(r"(?<![\w-])(--[a-z][a-z0-9-]*[a-z0-9]|-o\b)")
_COMMAND = re.compile(r"(?:s2mlp-[a-z]+|pip|npm) ")


def deploy(request: ExportRequest, listener: Listener | None = None) -> Export:
    """Export the request's source as one verified bundle.

    Raises:
        ParityError: where the artifact's numbers are off; nothing is published then.
        Error: for everything else that errors.py lists.
    """
    from s2mlp_deploy.pipeline import deploy as deploying

    with _in_fields():
        return deploying.deploy(request, _InFields(listener) if listener else None)


def tune(request: TuneRequest, listener: Listener | None = None) -> TuneResult:
    """Publish the best of all artifacts of the request's source that this machine can make and run, within the request's limits.

    Raises:
        LimitError: where none keeps the limits.
        Error: as :func:`s2mlp_deploy.pipeline.tune.tune.tune`.
    """
    from s2mlp_deploy.pipeline.tune import tune as tuning

    with _in_fields(_TUNE):
        return tuning.tune(request, _InFields(listener) if listener else None)


def verify(
    directory: AnyPath,
    *,
    per_block: bool = False,
    publisher: TrustedKey | None = None,
    require_signature: bool = False,
    placement: Placement | None = None,
) -> Verification:
    """Check the bundle at ``directory``: its signature, where a ``publisher`` is given, then its files, then its numbers, on the device
    of ``placement``, where one is given.

    With ``require_signature`` a publisher must be given, so that a program that lost its key does not run unsigned bundles.

    Raises:
        SignatureError: where ``publisher`` did not sign the bundle as it is.
        BundleError, RuntimeMissingError, UsageError: as :func:`s2mlp_deploy.pipeline.verify.verify`.
    """
    from s2mlp_deploy.bundle.signature import refuse_unchecked
    from s2mlp_deploy.pipeline import verify as verifying
    from s2mlp_deploy.runtime.session import HERE

    with _in_fields({**_PUBLISHER, **_PLACEMENT}):
        refuse_unchecked(publisher, require_signature=require_signature)
        return verifying.verify(Path(directory), per_block=per_block, publisher=publisher, placement=placement or HERE)


def read_bundle(directory: AnyPath, *, publisher: TrustedKey | None = None, require_signature: bool = False) -> Bundle:
    """The bundle at ``directory``, after checking its signature, where a ``publisher`` is given, and every file's hash.

    Raises:
        SignatureError: where ``publisher`` did not sign the bundle as it is.
        BundleError: where a file is missing, changed, not listed, or not a plain file.
        UsageError: where a signature is required, and no publisher is given.
    """
    from s2mlp_deploy.bundle.read import read_bundle
    from s2mlp_deploy.bundle.signature import refuse_unchecked

    with _in_fields(_PUBLISHER):
        refuse_unchecked(publisher, require_signature=require_signature)
        return read_bundle(Path(directory), publisher)


def load_checkpoint(
    path: AnyPath,
    *,
    layout: Layout | None = None,
    wrapper: str | None = None,
    image_size: Size | None = None,
    offsets: tuple[Offset, ...] | None = None,
    semantics: Semantics | None = None,
) -> Checkpoint:
    """Read, recognise and check the checkpoint at ``path``; the parameters are those of :func:`s2mlp_deploy.checkpoint.load.load_checkpoint`.

    Raises:
        CheckpointError, LayoutError: as there.
    """
    from s2mlp_deploy.checkpoint.load import load_checkpoint

    with _in_fields({"--weights": "wrapper"}):
        return load_checkpoint(
            Path(path), layout=layout, wrapper=wrapper, image_size=image_size, offsets=offsets, semantics=semantics
        )


def in_fields(message: str, names: Mapping[str, str] = _FIELDS) -> str:
    """``message`` with options as the fields and parameters that they stand for; commands to type stay as they are."""
    parts = []
    for sentence in re.split(r"((?<=[.;])\s+)", message):
        command = _COMMAND.search(sentence)
        end = command.start() if command else len(sentence)
        parts += [
            _OPTION.sub(lambda m: names.get(m[1], m[1].lstrip("-").replace("-", "_")), sentence[:end]),
            sentence[end:],
        ]
    return "".join(parts)


@contextmanager
def _in_fields(names: Mapping[str, str] | None = None) -> Iterator[None]:
    try:
        yield
    except Error as error:
        error.args = (in_fields(str(error), {**_FIELDS, **(names or {})}),)
        raise


class _InFields(Listener):
    """Passes steps on, and warnings in the words of :func:`in_fields`."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def step(self, what: str) -> AbstractContextManager[object]:
        """As :meth:`Listener.step`."""
        return self._listener.step(what)

    def warn(self, text: str) -> None:
        """As :meth:`Listener.warn`."""
        self._listener.warn(in_fields(text))
