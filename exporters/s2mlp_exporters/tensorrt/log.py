"""The builder's log: the only record of why a build failed, and of the layers that were fused."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from s2mlp_exporters.tensorrt.runtime import Module

_NOISE = ("catchCudaError", "Thread context")
"""Lines that follow any error where there is no driver."""

_ITEM_BYTES = {"Float": 4, "Half": 2, "BFloat16": 2, "Int8": 1, "UInt8": 1, "Bool": 1, "FP8": 1, "Int32": 4, "Int64": 8}


@dataclass(frozen=True)
class Kernel:
    """One kernel after fusion: which nodes of the model it does, and the bytes of activations it reads and writes.

    ``moved_bytes`` counts dynamic dimensions as one.
    """

    kind: str
    nodes: tuple[str, ...]
    moved_bytes: int

    @property
    def only_shifts(self) -> bool:
        """Whether all it does is to move what the spatial shift moves."""
        return bool(self.nodes) and all("/shift" in name for name in self.nodes)


@dataclass
class Log:
    """Lines of the runtime's log, as (severity, message)."""

    lines: list[tuple[str, str]] = field(default_factory=list)

    def into(self, trt: Module) -> Any:
        """A logger that writes here. It must outlive the object that it is given to, which keeps no reference."""
        lines = self.lines

        class Logger(trt.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)  # pybind11 wants it by name

            def log(self, severity: Any, message: str) -> None:
                lines.append((severity.name, message))

        return Logger()

    @property
    def errors(self) -> list[str]:
        """The errors, without those that only follow from others."""
        found = (m for severity, m in self.lines if severity in ("ERROR", "INTERNAL_ERROR"))
        return [m for m in found if not any(noise in m for noise in _NOISE)]

    def text(self) -> list[str]:
        """All but the verbose lines, and the one that names the file, whose path is private."""
        lines = [(severity, message) for severity, message in self.lines if severity != "VERBOSE"]
        return [f"{severity}: {message}" for severity, message in lines if not message.startswith("Input filename")]

    def kernels(self) -> tuple[Kernel, ...]:
        """The kernels of the engine, which a builder lists at detailed verbosity."""
        listing = next((message for _, message in self.lines if message.startswith("Layers:")), "")
        return tuple(kernel for line in listing.splitlines() if (kernel := _kernel(line)))


def reason(errors: Iterable[str]) -> str:
    """The first error without the runtime's call stack around it."""
    text = next(iter(errors), "it gives no reason")
    text = re.sub(r"^.*?Error Code \d+: [\w ]*? ?\(", "", text)
    text = re.sub(r"\[[\w.:]+: \w+\] ", "", text)
    return re.sub(r"\.?;? *In \S+ at \S+?:\d+\)?$", "", text).strip(" .;)")


def summary(kernels: tuple[Kernel, ...]) -> dict[str, Any]:
    """Figures of the built engine; none where its log does not list the kernels."""
    if not kernels:
        return {}
    shifting = [kernel for kernel in kernels if kernel.only_shifts]
    return {
        "kernels": len(kernels),
        "kernel_kinds": dict(sorted(Counter(kernel.kind for kernel in kernels).items())),
        "moved_bytes": sum(kernel.moved_bytes for kernel in kernels),
        "shift_kernels": len(shifting),
        "shift_moved_bytes": sum(kernel.moved_bytes for kernel in shifting),
    }


def _kernel(line: str) -> Kernel | None:
    head = re.match(r"Name: \S+, LayerType: (\w+)", line)
    if not head:
        return None
    inputs = re.search(r"Inputs: \[(.*?)\](?=, (?:Constants|Outputs): \[)", line)
    outputs = re.search(r"Outputs: \[(.*)\], TacticName", line)
    nodes = tuple(re.findall(r"\[ONNX Layer: ([^\]]*)\]", line))
    return Kernel(head[1], nodes, sum(_tensor_bytes(part[1]) for part in (inputs, outputs) if part))


def _tensor_bytes(text: str) -> int:
    total = 0
    for dimensions, dtype in re.findall(r"Dimensions: \[([-\d,]*)\].*?Datatype: (\w+)", text):
        count = 1
        for dimension in filter(None, dimensions.split(",")):
            count *= abs(int(dimension))
        total += count * _ITEM_BYTES.get(dtype, 4)
    return total
