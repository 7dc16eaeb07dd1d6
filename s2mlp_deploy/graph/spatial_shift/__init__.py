"""The four ways of expressing the spatial shift in ONNX.

Each lowering, in a module of its own, gives the result of ``families/shift_reference.py`` bit for bit, or the reason
why it cannot (:meth:`Lowering.refusal`). Feature maps travel through the graph as tokens (batch · height · width,
channels), so that the layers around the shift are plain 2-D Gemms; a lowering reshapes to what it needs and back.

========  ================================  ===============  ====================================
name      operators                         dynamic size     exact for
========  ================================  ===============  ====================================
slice     Split, Slice, Concat (Pad)        distance 1 [1]_  all but smearing diagonals
gather    Split, Gather, Concat             no               all borders but zero
conv      (Pad,) depthwise Conv             yes              distance 1 along one axis; border zero: diagonals, too
pad       Pad, Split, Slice, Concat         yes              distance 1 along one axis; border zero: all
========  ================================  ===============  ====================================

.. [1] Any distance where the border keeps its values.
"""

from __future__ import annotations

from collections.abc import Sequence

from s2mlp_deploy.errors import LoweringError, UsageError
from s2mlp_deploy.graph.spatial_shift.conv_lowering import ConvLowering
from s2mlp_deploy.graph.spatial_shift.gather_lowering import GatherLowering
from s2mlp_deploy.graph.spatial_shift.lowering import FeatureMap, Lowering
from s2mlp_deploy.graph.spatial_shift.pad_lowering import PadLowering
from s2mlp_deploy.graph.spatial_shift.slice_lowering import SliceLowering
from s2mlp_deploy.schema.shift import Shift

__all__ = ["LOWERINGS", "FeatureMap", "Lowering", "choose"]

LOWERINGS: dict[str, Lowering] = {
    lowering.name: lowering for lowering in (GatherLowering(), SliceLowering(), PadLowering(), ConvLowering())
}
"""All lowerings by name, fastest on ONNX Runtime's CPU provider first."""


def choose(name: str, shifts: Sequence[Shift], *, dynamic_size: bool) -> Lowering:
    """The lowering called ``name``, or for ``auto`` the fastest one that is exact for all ``shifts``.

    Raises:
        LoweringError: where that lowering, or for ``auto`` every one, would not be exact.
        UsageError: where there is none of that name, or no shift.
    """
    if name != "auto" and not shifts:
        raise UsageError(f"--shift {name}: this network has no shift to lower: leave it out")
    refusals = {
        n: next(filter(None, (lowering.refusal(shift, dynamic_size=dynamic_size) for shift in shifts)), None)
        for n, lowering in LOWERINGS.items()
    }
    exact = [n for n, reason in refusals.items() if reason is None]
    if name == "auto":
        if not exact:
            reasons = "; ".join(f"{n}: {reason}" for n, reason in refusals.items())
            raise LoweringError(f"no lowering of the shift is exact here ({reasons}). Leave out --dynamic-size")
        return LOWERINGS[exact[0]]
    if name not in LOWERINGS:
        raise UsageError(f"unknown lowering {name!r}: expected auto, {', '.join(LOWERINGS)}")
    if reason := refusals[name]:
        raise LoweringError(
            f"--shift {name} would change the model's predictions: {reason}. "
            + (f"Use --shift {' or '.join(exact)}." if exact else "Leave out --dynamic-size and use --shift gather.")
        )
    return LOWERINGS[name]
