"""A network that no family describes: all that is known of it is what its ONNX file states."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from s2mlp_deploy.schema.shift import Semantics
from s2mlp_deploy.schema.spec import Network
from s2mlp_deploy.schema.strict_model import StrictModel
from s2mlp_deploy.schema.tensor_entry import TensorEntry

MOST_TENSORS = 1000
"""Inputs, or outputs, of a network: the most that a file may state."""

GoldenSource = Literal["model", "recording", "itself"]


class OnnxNetwork(StrictModel, Network):
    """Any number of inputs and outputs, of any shape.

    ``shift`` is the semantics of its overlapping statements; None where it has none. ``golden`` says where the golden outputs come
    from: the ``model`` that was repaired, a ``recording`` of the user's own, or, where neither is of this semantics, the
    repaired model ``itself``.
    """

    family: ClassVar[str] = "onnx"

    inputs: Annotated[tuple[TensorEntry, ...], Field(min_length=1, max_length=MOST_TENSORS)]
    outputs: Annotated[tuple[TensorEntry, ...], Field(min_length=1, max_length=MOST_TENSORS)]
    parameters: Annotated[int, Field(ge=0, lt=2**53)]
    shift: Semantics | None = None
    golden: GoldenSource = "model"

    @property
    def semantics(self) -> Semantics | None:
        """The semantics of its overlapping statements."""
        return self.shift

    def to_json(self) -> dict[str, Any]:
        """As :meth:`Network.to_json`."""
        return {"family": self.family, **self.model_dump(mode="json")}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> OnnxNetwork:
        """As :meth:`Network.from_json`."""
        return cls.model_validate({name: value for name, value in content.items() if name != "family"})
