"""Ways to put a fault into an export or a bundle, and to tell which check caught it."""

from __future__ import annotations

import json
import re
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from helpers.reliability.record import Trials
from s2mlp_deploy.errors import AccuracyError, BundleError, Error, EvidenceError, ParityError, RuntimeMissingError
from s2mlp_deploy.pipeline.verify import Verification
from s2mlp_deploy.runtime.session import description_of
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.system.hashing import sha256
from s2mlp_deploy.system.progress import Listener

_CHECK = re.compile(r"[\w-]+: ([A-Za-z0-9 ]+?) (?:[-+.\de]+|inf|nan), limit")


class Steps(Listener):
    """Keeps the step that the work has come to."""

    now = ""

    @contextmanager
    def _stepping(self, what: str) -> Iterator[None]:
        self.now = what
        yield

    def step(self, what: str) -> AbstractContextManager[object]:
        return self._stepping(what)


@dataclass
class Catalogue:
    """Which check caught which fault; those that passed are kept, too."""

    caught: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    passed: list[str] = field(default_factory=list)

    def try_export(self, fault: str, export: Callable[[Steps], object]) -> None:
        """Count ``fault`` by the check that stops ``export``."""
        steps = Steps()
        try:
            export(steps)
        except Error as error:
            self.caught[check_of(error, steps.now)].append(fault)
        else:
            self.passed.append(fault)

    def try_verify(self, fault: str, verify: Callable[[], Verification]) -> None:
        """Count ``fault`` by the check of s2mlp-verify that it fails."""
        try:
            found = verify()
        except Error as error:
            self.caught[check_of(error, "verify")].append(fault)
            return
        if found.passed:
            self.passed.append(fault)
        elif found.verdict.passed:
            self.caught["golden images"].append(fault)
        else:
            self.caught[f"verify: {found.verdict.failures[0].quantity}"].append(fault)

    def tell(self, trials: Trials) -> None:
        """Count faults, say which check caught which, and fail where one passed, or none was tried."""
        assert self.caught or self.passed
        trials.tried("faults", sum(map(len, self.caught.values())) + len(self.passed))
        for check, faults in sorted(self.caught.items(), key=lambda item: -len(item[1])):
            trials.note(f"*{check}* ({len(faults)}): {', '.join(_grouped(faults))}")
        assert not self.passed, f"passed: {self.passed}; caught: {dict(self.caught)}"


def _grouped(faults: list[str]) -> list[str]:
    """``fault (a, b)`` for "fault [a]" and "fault [b]"; of more places than four, their number."""
    where: dict[str, list[str]] = {}
    for fault in faults:
        name, _, rest = fault.partition(" [")
        where.setdefault(name, []).extend([rest.removesuffix("]")] if rest else [])
    return [f"{name}{_places(places)}" for name, places in where.items()]


def _places(places: list[str]) -> str:
    if len(places) > 4:
        return f" ×{len(places)}"
    return f" ({', '.join(places)})" if places else ""


def check_of(error: Error, step: str) -> str:
    """The check that raised ``error`` in ``step``, in a few words."""
    text = str(error)
    place = next((short for part, short in _PLACES.items() if part in step), step)
    if "graph is not the float32 graph" in text:
        return "graph read back"
    if "name its best classes" in text:
        return f"{place}: best classes"
    if found := _CHECK.search(text):
        return f"{place}: {found[1]}"
    if isinstance(error, EvidenceError):
        return "evidence"
    if isinstance(error, AccuracyError):
        return "accuracy of int8"
    if isinstance(error, ParityError):
        return "float16's range"
    if "does not describe the artifact" in text:
        return "manifest against artifact"
    if isinstance(error, BundleError) and "SHA-256" in text:
        return "SHA-256"
    if isinstance(error, RuntimeMissingError):
        return "what the runtime says that it does"
    if isinstance(error, BundleError):
        return "what makes a bundle"
    raise error


_PLACES = {
    "float32 graph": "float32 graph",
    "float16 graph": "float16 graph",
    "engine with the reference": "engine",
    "parity with": "artifact",
    "verify": "verify",
}


# Changes of a file


def in_tensor(name: str, change: Callable[[Array], Array]) -> Callable[[Path], None]:
    """Change one constant of an ONNX file."""

    def changed(path: Path) -> None:
        model = onnx.load(path)
        (tensor,) = (t for t in model.graph.initializer if t.name == name)
        array = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(change(array.copy()), array.dtype), name))
        onnx.save(model, path)

    return changed


def in_all_weights(change: Callable[[Array], Array]) -> Callable[[Path], None]:
    """Change every floating-point constant of an ONNX file with more than one axis."""

    def changed(path: Path) -> None:
        model = onnx.load(path)
        for tensor in model.graph.initializer:
            array = numpy_helper.to_array(tensor)
            if array.ndim > 1 and array.dtype.kind == "f":
                tensor.CopyFrom(numpy_helper.from_array(change(array).astype(array.dtype), tensor.name))
        onnx.save(model, path)

    return changed


def in_nodes(change: Callable[[onnx.NodeProto], None]) -> Callable[[Path], None]:
    """Change nodes of an ONNX file."""

    def changed(path: Path) -> None:
        model = onnx.load(path)
        for node in model.graph.node:
            change(node)
        onnx.save(model, path)

    return changed


def copied_from(other: Path) -> Callable[[Path], None]:
    """Another file in its place."""
    return lambda path: Path(shutil.copyfile(other, path)) and None


# Changes of a bundle


def tampered(
    bundle: Path, place: Path, change: Callable[[Path, dict[str, Any]], object], *, rehash: bool = True
) -> Path:
    """A copy of ``bundle`` at ``place``, after ``change`` of its files or manifest, with hashes made right."""
    shutil.copytree(bundle, place)
    manifest = json.loads((place / "manifest.json").read_bytes())
    change(place, manifest)
    if rehash:
        manifest["files"] = {name: sha256(place / name) for name in manifest["files"]}
    (place / "manifest.json").write_text(json.dumps(manifest))
    return place


# Sessions that err


Answers = Callable[[Array, Callable[[Array], Array]], Array]
"""What a session makes of images, given what it should run."""


class Erring:
    """A session that answers as ``answers`` says; one for each artifact, so that it can remember."""

    def __init__(self, session: Any, make: Callable[[], Answers]) -> None:
        self._session, self._answers = session, make()

    def run(self, images: Array) -> Array:
        return self._answers(images, self._session.run)

    def describe(self) -> Any:
        return description_of(self._session)


def after(change: Callable[[Array], Array]) -> Callable[[], Answers]:
    """Sessions whose answers are changed."""
    return lambda: lambda images, run: change(run(images).copy())


def before(change: Callable[[Array], Array]) -> Callable[[], Answers]:
    """Sessions whose images are changed."""
    return lambda: lambda images, run: run(np.ascontiguousarray(change(images.copy())))


__all__ = [
    "Catalogue",
    "Erring",
    "Mapping",
    "Steps",
    "after",
    "before",
    "check_of",
    "copied_from",
    "in_all_weights",
    "in_nodes",
    "in_tensor",
    "replace",
    "tampered",
]
