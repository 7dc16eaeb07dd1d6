"""The exceptions of this package, as a tree that callers can catch at any level.

::

    Error
    ├── UsageError             2   the request contradicts itself, or cannot be done
    │   └── LoweringError          this way of expressing the shift would not be exact
    ├── InputError             3   a file that the user gave is not valid
    │   ├── CheckpointError
    │   │   └── SpecError          the weights (or the options) describe no network of the family
    │   ├── LayoutError
    │   ├── ModelError             ONNX files of other tools
    │   ├── PlanError              the plan of a sweep
    │   ├── DataError              images, labels, reference recordings
    │   ├── KeyFileError           keys and certificates
    │   └── BundleError
    │       └── TimeLimitError     a graph with loops ran on and on
    │       └── SignatureError     missing, by another publisher, or not of these files
    ├── ParityError            1   the numbers are off, so nothing was published
    │   ├── EvidenceError          neither shift semantics explains the evidence
    │   ├── AccuracyError          int8 cannot keep the required accuracy
    │   ├── UnverifiedError        the engine cannot be checked on this machine
    │   └── SimplifierError        onnxsim failed, or changed the interface
    ├── LimitError             1   no candidate keeps the limits of a tune
    ├── RuntimeMissingError    4   a package or a device is missing
    │   └── CompilerError          the runtime at hand cannot compile the graph
    ├── OutputError            3   the result cannot be written
    └── InternalError          1   a step of this package got input that it was not written for

Each message states the fault, its place, the expected value and the remedy. The number is the exit
code of the commands.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Error(Exception):
    """Anything that this package raises on purpose; ``str()`` is one paragraph for the user."""

    exit_code = 1
    done: Mapping[str, Any] | None = None
    """The results that were complete before the error, as ``--json`` shows them; None unless a command sets it."""


class UsageError(Error):
    """The request contradicts itself, or is impossible."""

    exit_code = 2


class LoweringError(UsageError):
    """The chosen lowering cannot express this shift exactly."""


class InputError(Error):
    """A file that the user gave is not valid."""

    exit_code = 3


class CheckpointError(InputError):
    """The checkpoint cannot be read, or not be used."""


class SpecError(CheckpointError):
    """The weights or the options describe no network of the family."""


class LayoutError(InputError):
    """No layout fits the checkpoint's keys, or more than one does, or a layout file is wrong."""


class ModelError(InputError):
    """An ONNX file that another tool wrote cannot be read, or not be used."""


class PlanError(InputError):
    """The plan of a sweep cannot be read, or contradicts itself."""


class DataError(InputError):
    """Images, labels or recorded references cannot be used."""


class BundleError(InputError):
    """A bundle is damaged, incomplete or from another schema version."""


class SignatureError(BundleError):
    """A bundle's signature is missing, by another publisher, or not of the bundle's files."""


class KeyFileError(InputError):
    """A key or a certificate cannot be used."""


class TimeLimitError(BundleError):
    """A run of a graph with loops took so long that it was stopped."""


class OutputError(InputError):
    """The result cannot be written to its destination."""


class ParityError(Error):
    """The artifact's numbers differ from the reference's by more than the tolerance."""


class EvidenceError(ParityError):
    """Neither shift semantics explains the recorded logits or the labelled images."""


class AccuracyError(ParityError):
    """The accuracy limit cannot be kept at this precision."""


class UnverifiedError(ParityError):
    """The engine must be verified, and cannot run on this machine."""


class SimplifierError(ParityError):
    """onnxsim failed on the graph, or changed its interface."""


class LimitError(Error):
    """No artifact that can be made and run here keeps the limits that the user set."""


class RuntimeMissingError(Error):
    """A package or a device that the request needs is not here."""

    exit_code = 4


class CompilerError(RuntimeMissingError):
    """The runtime at hand cannot compile the graph."""


class InternalError(Error):
    """A step of this package got input that it was not written for: a fault of the package, not of the user."""
