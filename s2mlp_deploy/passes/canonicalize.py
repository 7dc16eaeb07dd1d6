"""Make a graph's bytes depend on the network alone, not on the tools that wrote it."""

from __future__ import annotations

from collections import Counter

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult, PostconditionError, Sequential
from onnx_ir.passes.common import (
    ClearMetadataAndDocStringPass,
    NameFixPass,
    RemoveUnusedNodesPass,
    TopologicalSortPass,
)

from s2mlp_deploy.system.version import __version__

PRODUCER = "s2mlp-deploy"


class Canonicalize(InPlacePass):
    """Bring a graph into the one form in which it is written.

    - Nodes and initializers that nothing reads are gone.
    - Every node and value has a name of its own. Names that are unique already stay: they name layers.
    - Each node stands behind those that it reads. Nodes that already do keep their places.
    - No node and no graph carries metadata or a doc string; the producer is this package.

    Two things stay, since they are the same in every run: the order of initializers, which is that in which they were
    added (the writer, graph/writer.py, puts the small ones first), and the metadata of the model, in which onnxsim
    records its options.

    Ensures: nodes are sorted, names unique, and every initializer is read.
    """

    def __init__(self) -> None:
        self._passes = Sequential(
            RemoveUnusedNodesPass(), NameFixPass(), TopologicalSortPass(), ClearMetadataAndDocStringPass()
        )

    def call(self, model: ir.Model) -> PassResult:
        modified = self._passes(model).modified
        model.producer_name, model.producer_version = PRODUCER, __version__
        return PassResult(model, modified=modified)

    def ensures(self, model: ir.Model) -> None:
        """Names are unique, nodes are sorted, every initializer is read."""
        graph = model.graph
        values = {id(v): v for v in (*graph.inputs, *graph.initializers.values())}
        for node in graph:
            for value in node.inputs:
                if value is not None and id(value) not in values:
                    raise PostconditionError(f"node {node.name} reads {value.name}, which is computed after it")
            values |= {id(value): value for value in node.outputs}
        for kind, names in (("nodes", [n.name for n in graph]), ("values", [v.name for v in values.values()])):
            if repeated := [name for name, count in Counter(names).items() if count > 1 or not name]:
                raise PostconditionError(f"{kind} share a name: {', '.join(map(repr, repeated[:4]))}")
        if unread := [n for n, v in graph.initializers.items() if not (v.uses() or v.is_graph_output())]:
            raise PostconditionError(f"no node reads {', '.join(unread[:4])}")
