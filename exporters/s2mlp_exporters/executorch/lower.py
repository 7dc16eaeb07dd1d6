"""Lower a bundle's ONNX graph to a program for ExecuTorch: torch.export, then XNNPACK takes the operators that it has."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s2mlp_deploy.errors import CompilerError, UsageError
from s2mlp_deploy.graph.metadata import metadata_of
from s2mlp_exporters.executorch.packages import executorch_version, load

FORWARD = "forward"
"""The method that computes logits."""


@dataclass(frozen=True)
class Program:
    """A program's bytes, its output's name, and how often each operator is called that XNNPACK left out."""

    content: Any
    output: str
    outside: Mapping[str, int]

    def write(self, path: Path) -> None:
        with path.open("wb") as file:
            self.content.write_to_file(file)


def lower(path: Path, max_batch: int) -> Program:
    """The program of the ONNX model at ``path``, for batches of up to ``max_batch`` images where its batch is free.

    Raises:
        CompilerError: where the graph has an operator without a translation, or ExecuTorch does not take it.
        UsageError: where its input has another free axis than the batch.
        RuntimeMissingError: where ExecuTorch is not here.
    """
    import onnx_ir as ir

    model = ir.load(path)
    (image,) = model.graph.inputs
    assert image.shape is not None and image.dtype is not None
    free = [i for i, n in enumerate(image.shape) if not isinstance(n, int)]
    if free not in ([], [0]):
        raise UsageError("--format executorch has one size of images for a file: leave out --dynamic-size")
    shape = tuple(n if isinstance(n, int) else max_batch for n in image.shape)
    metadata = metadata_of(model)  # each becomes a method that returns the text
    load("torch")  # which sets the levels of its loggers as it is imported
    with _quiet():
        return _lower(model, shape, image.dtype.numpy().name, free=bool(free and max_batch > 1), metadata=metadata)


def _lower(model: Any, shape: tuple[int, ...], dtype: str, *, free: bool, metadata: Mapping[str, str]) -> Program:
    exir, partitioner = load("executorch.exir"), load("executorch.backends.xnnpack.partition.xnnpack_partitioner")
    import torch

    from s2mlp_exporters.executorch.graph_module import GraphModule
    from s2mlp_exporters.executorch.operators import OPERATORS

    module = GraphModule(model, OPERATORS).eval()
    batch = ({0: torch.export.Dim("batch", min=1, max=shape[0])},) if free else None
    try:
        with torch.no_grad():
            exported = torch.export.export(
                module, (torch.zeros(shape, dtype=getattr(torch, dtype)),), dynamic_shapes=batch
            )
        edge = exir.to_edge_transform_and_lower(
            exported, partitioner=[partitioner.XnnpackPartitioner()], constant_methods=dict(metadata)
        )
        outside = _outside(edge.exported_program())
        return Program(edge.to_executorch(), module.output, outside)
    except (CompilerError, MemoryError):
        raise
    except Exception as error:  # those of exporting and lowering have no common base
        reason = " ".join(str(error).split())[:500] or type(error).__name__
        raise CompilerError(
            f"ExecuTorch {executorch_version()} with PyTorch {torch.__version__} cannot take this graph ({reason}): install another "
            "version, or export for another --format"
        ) from error


def _outside(program: Any) -> Mapping[str, int]:
    """How often each operator of PyTorch is called outside of what XNNPACK computes."""
    calls = (node.target for node in program.graph_module.graph.nodes if node.op == "call_function")
    names = (getattr(target, "_name", None) or getattr(target, "name", str)() for target in calls)
    found = Counter(str(name).removeprefix("aten::") for name in names if str(name).startswith("aten::"))
    found.pop("sym_size.int", None)  # the batch, read from a shape
    return dict(sorted(found.items()))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep PyTorch, torchao and ExecuTorch from reporting their own deprecations and optional libraries."""
    loggers = [logging.getLogger(name) for name in ("torch", "torchao", "executorch")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
