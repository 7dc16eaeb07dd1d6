"""Run passes one after another, and convert their exceptions to errors of this package."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import InvariantError, PassBase, PassError, PreconditionError, Sequential

from s2mlp_deploy.errors import InternalError, ParityError

_REPORT = "Please report this with the output of s2mlp-inspect CKPT --json and s2mlp-doctor"


def run_passes(model: ir.Model, *passes: PassBase) -> ir.Model:
    """Run ``passes`` on ``model``; each checks its requirements before it runs and its promises after.

    Whether ``model`` itself changes is up to the passes: an InPlacePass changes it, a FunctionalPass does not.

    Raises:
        InternalError: where a graph is not what a pass requires.
        ParityError: where a pass did not ensure what it promises.
        Exception: that a pass raised itself.
    """
    try:
        return Sequential(*passes)(model).model
    except (InvariantError, PassError) as error:
        cause = _cause_of(error)
        if isinstance(cause, PreconditionError):
            raise InternalError(f"a pass met a graph that it was not written for: {cause}. {_REPORT}") from error
        if isinstance(cause, (InvariantError, PassError)):
            raise ParityError(f"a pass broke the graph, so nothing was published: {cause}. {_REPORT}") from error
        raise cause from error


def _cause_of(error: BaseException) -> BaseException:
    """The exception at the bottom of the wrappers that onnx_ir puts around it."""
    while isinstance(error, (InvariantError, PassError)) and error.__cause__ is not None:
        error = error.__cause__
    return error
