"""A node of an ONNX graph, as formats read it that translate graphs operator by operator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from s2mlp_deploy.errors import CompilerError

if TYPE_CHECKING:
    import onnx_ir as ir

T = TypeVar("T")


@dataclass(frozen=True)
class Node:
    """A node of the ONNX graph: its operator, the names of inputs ("" where left out) and outputs, its attributes.

    ``format`` is the one that the graph is translated for, which refusals name.
    """

    format: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    @classmethod
    def of(cls, node: ir.Node, format: str) -> Node:
        operator = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
        return cls(
            format,
            operator,
            tuple("" if x is None else str(x.name) for x in node.inputs),
            tuple(str(x.name) for x in node.outputs),
            {name: attribute.value for name, attribute in node.attributes.items()},
        )

    @property
    def name(self) -> str:
        """The name of the first output, which is the node's in this project's graphs."""
        return self.outputs[0]

    def has(self, index: int) -> bool:
        """Whether input ``index`` is given."""
        return index < len(self.inputs) and self.inputs[index] != ""

    def translated_by(self, table: Mapping[str, T]) -> T:
        """The entry of ``table`` for the node's operator.

        Raises:
            CompilerError: where there is none.
        """
        if self.operator not in table:
            raise CompilerError(
                f"--format {self.format} has no translation for the operator {self.operator} of {self.name}: export for another --format"
            )
        return table[self.operator]

    def refused(self, why: str) -> CompilerError:
        """The refusal of the node for the reason ``why``."""
        return CompilerError(
            f"--format {self.format} cannot express {self.name} ({self.operator}): {why}. Export for another --format"
        )
