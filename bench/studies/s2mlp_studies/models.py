"""The models of the measurements, and the promises made for each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Promises:
    """The limits of ratios; None where nothing was promised. All are the least that they must reach, but for memory.

    ``memory`` is the most that an export may hold beyond its imports, in sizes of the checkpoint; ``export`` is the time of torch.onnx.export in units of that of an export without a gate, ``naive`` the latency of its
    graph in units of float32's, ``int8`` that of float32 in units of int8's.
    """

    naive: float
    int8: float
    export: float | None = None
    memory: float | None = None


@dataclass(frozen=True)
class Model:
    """A preset, its title in prose, and which parts measure it: exports in ``export_rounds``, latency with its ``details`` or without."""

    name: str
    title: str
    promises: Promises
    parts: frozenset[str]
    export_rounds: int = 3
    details: bool = True


_ALWAYS = frozenset({"export", "latency"})

MODELS = {
    model.name: model
    for model in (
        Model("wide", "S²-MLP-wide", Promises(1.25, 3.3, export=5, memory=3), _ALWAYS | {"engines", "gpu"}),
        Model(
            "deep",
            "S²-MLP-deep",
            Promises(1.25, 2.8, export=5, memory=3),
            _ALWAYS | {"engines", "devices", "scale", "gpu"},
        ),
        Model("v2-small7", "S²-MLPv2-Small/7", Promises(2.5, 2.2), _ALWAYS, export_rounds=1, details=False),
    )
}
"""By name. int8's gain is that on processors with VNNI; wide gains more, for a larger share of its time is matrix products.
Only deep is scaled: large images of wide take too long. torch.onnx.export takes minutes for S²-MLPv2, so it exports once."""
