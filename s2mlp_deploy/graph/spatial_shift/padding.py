"""The base class of lowerings that pad the map, which decides on the shifts that they express exactly."""

from __future__ import annotations

from s2mlp_deploy.graph.spatial_shift.lowering import Lowering
from s2mlp_deploy.schema.shift import Shift


class PaddingLowering(Lowering):
    """Lowerings that pad the map: replicate padding by one equals "keep" at distance 1, zeros are zeros at any."""

    def refusal(self, shift: Shift, *, dynamic_size: bool) -> str | None:
        if shift.border == "wrap":
            return "its padding repeats the border or writes zeros, and wrapping is neither"
        if shift.border == "zero":
            return None
        for offset in shift.offsets:
            if sum(map(abs, offset)) > 1:
                return (
                    f"a group moves by {offset}, and beyond distance 1 along one axis replicate padding is not the "
                    "shift: at the border positions keep their own value"
                )
            if shift.smears(offset):
                return (
                    "under in-place semantics the border's value reaches every position, and "
                    f"{self.name} looks at direct neighbours only"
                )
        return None
