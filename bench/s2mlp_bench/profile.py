"""Where the time of a bundle goes, by the runtime's own account: products, GELU, LayerNorm, shift and the rest."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from s2mlp_bench.candidate import Point
from s2mlp_deploy.runtime.session import Kernel, ProfilingSession
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.spec import Spec

RUNS = 5

KINDS: tuple[tuple[str, str], ...] = (
    (r"/fc[12]$", "FC₁, FC₂"),
    (r"/token[12]$", "token mixing"),
    (r"/fc3$", "FC₃"),
    (r"/fc4$", "FC₄"),
    (r"/quantize$", "quantize"),
    (r"/shift/", "shift"),
    (r"/norm[12]?$", "LayerNorm"),
    (r"/gelu[12]$", "GELU"),
    (r"/(add1|block\d+)$", "residual sums"),
    (r"^(Inserted|Cast)", "casts"),
    (r"/embedding", "patch embedding"),
    (r"^(head/|logits)", "head"),
)
"""Kinds by the names in this project's graphs (families/*/emit.py), the first that fits; all others are :data:`OTHER`."""

OTHER = "other"

OPERATIONS = {"LayerNorm": 8, "GELU": 8, "quantize": 3, "residual sums": 1}
"""Operations an element, by our count: libraries differ, and only the order of magnitude matters in a roofline."""


@dataclass(frozen=True)
class Part:
    """One kind of layer in one run: its operators, milliseconds, operations, and bytes that they must move."""

    kind: str
    operators: tuple[str, ...]
    calls: int
    time_ms: float
    operations: int
    moved_bytes: int


@dataclass(frozen=True)
class Profile:
    """A candidate's parts, the longest first. Profiling itself takes time, most where operators are short."""

    candidate: str
    parts: tuple[Part, ...]

    @property
    def total_ms(self) -> float:
        """All parts together."""
        return sum(part.time_ms for part in self.parts)

    def share(self, part: Part) -> float:
        """A part's share of the time."""
        return part.time_ms / self.total_ms


def kinds(profiles: Sequence[Profile]) -> list[str]:
    """The kinds of layer that take time, products first."""
    present = {part.kind for one in profiles for part in one.parts}
    return [kind for kind in (*dict.fromkeys(kind for _, kind in KINDS), OTHER) if kind in present]


def take(
    name: str, session: ProfilingSession, images: Array, spec: Spec, point: Point, *, weight_bytes: int
) -> Profile:
    """The profile of ``session`` on one batch of ``images``; a weight of its products takes ``weight_bytes``."""
    kernels: dict[str, list[Kernel]] = {}
    for kernel in session.profile(images, RUNS):
        kernels.setdefault(_kind(kernel.node), []).append(kernel)
    parts = [_part(kind, found, spec, point, weight_bytes) for kind, found in kernels.items()]
    return Profile(name, tuple(sorted(parts, key=lambda part: -part.time_ms)))


def _kind(node: str) -> str:
    return next((kind for pattern, kind in KINDS if re.search(pattern, node)), OTHER)


def _part(kind: str, kernels: Sequence[Kernel], spec: Spec, point: Point, weight_bytes: int) -> Part:
    products = [_product(kernel.node, spec, point) for kernel in kernels]
    elements = sum(kernel.written_bytes // (1 if kind == "quantize" else 4) for kernel in kernels)
    operations = sum(2 * tokens * weights for tokens, weights in products) + OPERATIONS.get(kind, 0) * elements
    moved = sum(kernel.read_bytes + kernel.written_bytes for kernel in kernels)
    moved += sum(weights * weight_bytes for _, weights in products)
    operators = sorted({kernel.operator for kernel in kernels})
    duration_us = sum(kernel.duration_us for kernel in kernels)
    return Part(
        kind, tuple(operators), len(kernels) // RUNS, duration_us / RUNS / 1e3, operations // RUNS, moved // RUNS
    )


def _product(node: str, spec: Spec, point: Point) -> tuple[int, int]:
    """(tokens, weights) of the matrix product called ``node``; zeros where it is none of the blocks'."""
    product = next((p for p in spec.products(point.size) if p.name == node), None)
    return (point.batch * product.rows, product.inputs * product.outputs) if product else (0, 0)
