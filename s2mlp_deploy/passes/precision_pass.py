"""The base class of passes that lower a graph's precision: each compares its result with the original."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterator

import onnx_ir as ir
from onnx_ir.passes import FunctionalPass, PassResult, PreconditionError

from s2mlp_deploy.errors import ParityError
from s2mlp_deploy.graph.builder import constant_of, set_array
from s2mlp_deploy.passes import verify_rewrite
from s2mlp_deploy.passes.preconditions import require_float32
from s2mlp_deploy.system.wording import some

_SHOWN = 4


class PrecisionPass(FunctionalPass):
    """A pass from a float32 graph to a copy of it at a lower precision.

    Requires: a float32 graph with one input and one output.
    Ensures: :meth:`differences` finds none, so that the copy is the float32 graph but for rounding.
    """

    besides: Collection[ir.DataType] = ()
    """The types that constants may have besides those of a float32 graph."""

    _original: ir.Model | None = None

    @abstractmethod
    def rewrite(self, graph: ir.Graph) -> None:
        """Lower the precision of ``graph``, a copy whose weights are shared with the original."""

    @abstractmethod
    def differences(self, made: ir.Model, original: ir.Model) -> Iterator[str]:
        """Each place in which ``made`` differs from ``original`` by more than rounding, in words."""

    def requires(self, model: ir.Model) -> None:
        """The graph is float32, and has one input and one output."""
        require_float32(model, self.besides)
        counts = len(model.graph.inputs), len(model.graph.outputs)
        if counts != (1, 1):
            raise PreconditionError("the graph has {} inputs and {} outputs: expected one of each".format(*counts))
        self._original = model  # ensures() compares the result with it

    def call(self, model: ir.Model) -> PassResult:
        copy = model.clone()
        self.rewrite(copy.graph)
        return PassResult(copy, modified=True)

    def ensures(self, model: ir.Model) -> None:
        """The copy is the float32 graph but for rounding.

        Raises:
            ParityError: naming what else differs.
        """
        original, self._original = self._original, None
        assert original is not None
        if found := list(self.differences(model, original)):
            raise ParityError(
                f"the graph is not the float32 graph at a lower precision, so nothing was published: {some(found, _SHOWN, '; ')}. "
                "Please report this with the output of s2mlp-inspect CKPT --json and s2mlp-doctor"
            )


class RoundingPass(PrecisionPass):
    """A pass that rounds constants to a narrower float type, each once, and adds casts, but no other operators."""

    def differences(self, made: ir.Model, original: ir.Model) -> Iterator[str]:
        return verify_rewrite.rounding_differences(made.graph, original.graph)


def narrow(graph: ir.Graph, dtype: ir.DataType, kept: Collection[str | None] = ()) -> None:
    """Round the float32 constants of ``graph`` to ``dtype``, except those named in ``kept``, and retype its values."""
    for name, value in graph.initializers.items():
        if name not in kept and value.dtype == ir.DataType.FLOAT:
            set_array(value, constant_of(value).astype(dtype.numpy()), dtype)
    for node in graph:
        for output in node.outputs:
            if output.dtype == ir.DataType.FLOAT:
                output.type = ir.TensorType(dtype)
