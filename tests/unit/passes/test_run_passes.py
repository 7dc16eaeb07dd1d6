"""Passes one after another: what they require and ensure is checked, and faults become errors of this package."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx_ir.passes import InPlacePass, PassResult, PostconditionError, PreconditionError

from s2mlp_deploy.errors import InternalError, LoweringError, ParityError
from s2mlp_deploy.graph.builder import GraphBuilder
from s2mlp_deploy.passes.run_passes import run_passes


class Scripted(InPlacePass):
    """Raises what it is given in one of its three steps, and notes the steps that ran."""

    def __init__(self, step: str = "", error: Exception | None = None) -> None:
        self.step, self.error = step, error
        self.ran: list[str] = []

    def requires(self, model: ir.Model) -> None:
        self._run("requires")

    def call(self, model: ir.Model) -> PassResult:
        self._run("call")
        return PassResult(model, modified=False)

    def ensures(self, model: ir.Model) -> None:
        self._run("ensures")

    def _run(self, step: str) -> None:
        self.ran.append(step)
        if step == self.step and self.error is not None:
            raise self.error


def empty_model() -> ir.Model:
    builder = GraphBuilder()
    x = builder.op("Identity", [builder.constant("zero", np.zeros(1, np.float32))], "x")
    return builder.model([], [x], "empty")


def test_each_pass_is_checked_before_and_after() -> None:
    model, passes = empty_model(), (Scripted(), Scripted())
    assert run_passes(model, *passes) is model
    assert [p.ran for p in passes] == [["requires", "call", "ensures"]] * 2


@pytest.mark.parametrize(
    ("step", "raised", "expected", "message"),
    [
        (
            "requires",
            PreconditionError("fc1 is FLOAT16"),
            InternalError,
            "not written for: fc1 is FLOAT16. Please report",
        ),
        ("ensures", PostconditionError("γ is left"), ParityError, "nothing was published: γ is left. Please report"),
        ("ensures", ParityError("fc1 is another"), ParityError, "^fc1 is another$"),
        ("call", LoweringError("not exact"), LoweringError, "^not exact$"),
        ("call", MemoryError(), MemoryError, "^$"),
        ("requires", KeyError("gone"), KeyError, "gone"),
    ],
)
@pytest.mark.parametrize("before", [0, 1])
def test_a_fault_is_raised_as_what_it_is(
    step: str, raised: Exception, expected: type[Exception], message: str, before: int
) -> None:
    later = Scripted()
    with pytest.raises(expected, match=message) as caught:
        run_passes(empty_model(), *[Scripted()] * before, Scripted(step, raised), later)
    assert type(caught.value) is expected and later.ran == []
