"""Make candidates one after another, each through the gate, and keep each outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

from s2mlp_deploy.bundle.read import read_report
from s2mlp_deploy.errors import (
    BundleError,
    Error,
    EvidenceError,
    LoweringError,
    ParityError,
    RuntimeMissingError,
    UsageError,
)
from s2mlp_deploy.formats.registry import ONNX
from s2mlp_deploy.gate.checks import failure
from s2mlp_deploy.pipeline import verify
from s2mlp_deploy.pipeline.deploy import deploy_each
from s2mlp_deploy.pipeline.request import Export, OutputOptions
from s2mlp_deploy.pipeline.tune.candidates import Build, export_request
from s2mlp_deploy.pipeline.tune.request import TuneRequest
from s2mlp_deploy.pipeline.tune.workspace import Made, Refused, Workspace
from s2mlp_deploy.schema.report import Report
from s2mlp_deploy.system.progress import Listener


def make(
    request: TuneRequest,
    builds: Sequence[Build],
    workspace: Workspace,
    listener: Listener,
    is_over: Callable[[], bool],
) -> Iterator[Made | Refused]:
    """The outcome of each of ``builds``, found in ``workspace`` or made now, until ``is_over()``; one is made at least.

    Raises:
        Error: where the fault is not that of a candidate alone: of the checkpoint, of the images, of the request, of the disk.
    """
    known = [workspace.find(build) for build in builds]
    missing = [build for build, outcome in zip(builds, known, strict=True) if outcome is None]
    numbered = _Numbered(listener, len(builds))
    of_source = _of_bundle if request.source.is_bundle else _of_checkpoint
    made = of_source(request, missing, workspace, numbered)
    count = 0
    for position, (build, outcome) in enumerate(zip(builds, known, strict=True)):
        if outcome is None:
            if count and is_over():
                continue
            numbered.announce(position + 1, build)
            outcome = _kept(build, next(made), workspace, request)
        count += 1
        yield outcome


def _of_checkpoint(
    request: TuneRequest, builds: Sequence[Build], workspace: Workspace, listener: Listener
) -> Iterator[Export | Error]:
    if builds:
        places = [OutputOptions(workspace.place(build), force=True) for build in builds]
        yield from deploy_each(
            [export_request(build, request, place) for build, place in zip(builds, places, strict=True)], listener
        )


def _of_bundle(
    request: TuneRequest, builds: Sequence[Build], workspace: Workspace, listener: Listener
) -> Iterator[Export | Error]:
    """One at a time: an artifact that this bundle's graph is not for keeps none of the others from being made."""
    for build in builds:
        place = OutputOptions(workspace.place(build), force=True)
        try:
            if build.format == ONNX:
                yield _verified(request)
            else:
                yield from deploy_each([export_request(build, request, place)], listener)
        except Error as error:
            yield error


def _verified(request: TuneRequest) -> Export:
    """The ONNX bundle that was given, where it is right on this machine."""
    checked = verify.verify(request.source.path, publisher=request.source.publisher)
    if not checked.verdict.passed:
        raise ParityError(failure(checked.verdict))
    return Export(checked.bundle, checked.verdict, read_report(checked.bundle) or Report())


def _kept(build: Build, outcome: Export | Error, workspace: Workspace, request: TuneRequest) -> Made | Refused:
    """``outcome`` as the workspace keeps it.

    Raises:
        Error: as :func:`make`.
    """
    if isinstance(outcome, Export):
        return Made(build, outcome.bundle, outcome.report)
    own = (
        (*_OF_A_CANDIDATE, UsageError) if request.source.is_bundle else _OF_A_CANDIDATE
    )  # of formats that do not take its graph
    if isinstance(outcome, EvidenceError) or not isinstance(outcome, own):
        raise outcome
    return workspace.refuse(build, outcome)


_OF_A_CANDIDATE = (ParityError, RuntimeMissingError, LoweringError, BundleError)
"""Errors that leave the other candidates as they are."""


class _Numbered(Listener):
    """Passes steps on with the candidate that they are of, and each warning once."""

    def __init__(self, listener: Listener, count: int) -> None:
        self._listener, self._count = listener, count
        self._of = ""
        self._warned: set[str] = set()

    def announce(self, position: int, build: Build) -> None:
        """From here on, steps are those of ``build``."""
        self._of = f"{position} of {self._count}, {build.name}: "

    def step(self, what: str) -> AbstractContextManager[object]:
        """As :meth:`Listener.step`."""
        return self._listener.step(self._of + what)

    def warn(self, text: str) -> None:
        """As :meth:`Listener.warn`."""
        if text not in self._warned:
            self._warned.add(text)
            self._listener.warn(text)
