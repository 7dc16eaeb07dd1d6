"""Find every subgraph that only moves data, and write it plainly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from s2mlp_deploy.errors import UsageError
from s2mlp_deploy.passes.data_movement.decide import Decider
from s2mlp_deploy.passes.data_movement.emit import Emitter
from s2mlp_deploy.passes.data_movement.forms import Preference
from s2mlp_deploy.passes.data_movement.interpret import Interpreter
from s2mlp_deploy.passes.data_movement.kept_shapes import ShapeReaders
from s2mlp_deploy.passes.data_movement.leaving import Planner
from s2mlp_deploy.passes.data_movement.merge import Shapes
from s2mlp_deploy.passes.data_movement.regions import RegionPlan, needed, regions
from s2mlp_deploy.passes.data_movement.repair_result import LeftAlone, Region, Repair, Statement
from s2mlp_deploy.passes.data_movement.sizes import ONLY_THE_BATCH, InputShapes, trials
from s2mlp_deploy.passes.data_movement.values import Moved
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.shift import Semantics

OLDEST_OPSET = 11
"""The oldest operator set whose models are repaired: from it on, Pad and Slice take their numbers as inputs."""


def repair(
    model: ir.Model,
    *,
    prefer: Preference = "gather",
    semantics: Semantics | Mapping[str, Semantics] = "paper",
    change_map: Callable[[Array], Array] | None = None,
) -> Repair:
    """A copy of ``model`` whose data movement is written as the plainest exact operators.

    ``semantics`` is for all overlapping statements, or maps statements' names to one each; those left out keep ``paper``,
    as exported. ``change_map`` alters each map of source elements before operators are planned for it: it injects faults.
    ``model`` stays as it is, and the values of its weights are not read.

    Raises:
        UsageError: where the operator set is too old, ``semantics`` names a statement that is not there, or wants ``inplace`` for one whose order of copying is not known.
    """
    opset = model.graph.opset_imports.get("", OLDEST_OPSET)
    if opset < OLDEST_OPSET:
        raise UsageError(
            f"the model uses operator set {opset}, and {OLDEST_OPSET} is the oldest that is repaired; convert it with "
            "onnx.version_converter"
        )
    model = model.clone()
    reading = _reading(semantics)
    sizes = _fitting(model)
    runs = [_Run(model, shapes, reading, change_map, rows=len(sizes) <= ONLY_THE_BATCH) for shapes in sizes]
    statements = _common_statements([run.findings.statements for run in runs])
    _check(semantics, statements)
    chosen = _chosen(model.graph, runs, prefer)
    emitter = Emitter(model.graph, opset)
    shape_readers = ShapeReaders(model.graph, _shapes(model.graph, runs))
    changed: list[Region] = []
    for region in chosen:
        new = emitter.replace(region)
        shape_readers.redirect(region, emitter)
        if region.plans:
            changed.append(_described(len(changed), region, new))
    _fold_known(model.graph, [run.findings.known for run in runs], emitter)
    RemoveUnusedNodesPass()(model)
    left = {alone.node: alone for run in runs for alone in run.findings.left_alone}
    return Repair(model, tuple(changed), (*left.values(), *_without_plan(chosen)), statements)


class _Run:
    """An interpretation at one size, and the ways to write each leaving value at it."""

    def __init__(
        self,
        model: ir.Model,
        shapes: InputShapes,
        reading: Callable[[Statement], Semantics],
        change_map: Callable[[Array], Array] | None,
        rows: bool,
    ) -> None:
        self.interpreter = Interpreter(model, shapes, reading, self._plan)
        self._planner = Planner(self.interpreter.shape_of, change_map, rows)
        self.findings = self.interpreter.run()
        self.choices = self._planner.choices

    def _plan(self, value: ir.Value, moved: Moved) -> None:
        self._planner.add(value, moved, self.interpreter.space)


def _fitting(model: ir.Model) -> list[InputShapes]:
    """The first group of sizes that go together with the graph; the first of all where none does."""
    groups = list(trials(model.graph))
    if len(groups) > 1:
        for group in groups:
            if not Interpreter(model, group[0], lambda _: "paper", lambda *_: None).run().inconsistent:
                return group
    return groups[0]


def _reading(semantics: Semantics | Mapping[str, Semantics]) -> Callable[[Statement], Semantics]:
    if isinstance(semantics, str):
        return lambda _: semantics
    return lambda statement: semantics.get(statement.name, "paper")


def _check(semantics: Semantics | Mapping[str, Semantics], statements: Iterable[Statement]) -> None:
    """Raise UsageError where ``semantics`` cannot be had."""
    found = {statement.name: statement for statement in statements}
    if not isinstance(semantics, str) and (unknown := [name for name in semantics if name not in found]):
        raise UsageError(f"the model has no overlapping statement {unknown[0]}; it has {', '.join(found) or 'none'}")
    reading = _reading(semantics)
    for statement in found.values():
        if statement.reason is not None and reading(statement) == "inplace":
            raise UsageError(f"the in-place result of {statement.name} is not known: {statement.reason}")


def _common_statements(runs: Sequence[Sequence[Statement]]) -> tuple[Statement, ...]:
    """The statements, with ``?`` for each size of a buffer that is not the same at all sizes."""
    by_name = [{statement.name: statement for statement in run} for run in runs]
    result = []
    for name, first in by_name[0].items():
        shapes = [run[name].shape for run in by_name if name in run]
        sizes = tuple(same[0] if len(set(same)) == 1 else "?" for same in zip(*shapes, strict=False))
        result.append(replace(first, shape=sizes))
    return tuple(result)


def _chosen(graph: ir.Graph, runs: Sequence[_Run], prefer: Preference) -> list[RegionPlan]:
    """The plan of each region.

    Raises:
        UsageError: where a statement cannot be written in place.
    """
    first, order = runs[0], {node: i for i, node in enumerate(graph)}
    moving = set.intersection(*(run.findings.moving for run in runs))
    decider = Decider(prefer, [run.choices for run in runs], first.interpreter.shape_of)
    leaving = sorted(
        (value for value in first.choices if value.producer() in moving),
        key=lambda value: order[value.producer()],  # type: ignore[index]
    )
    chosen = [
        decider.decide(nodes, values, first.findings.restored) for nodes, values in regions(graph, moving, leaving)
    ]
    for region in chosen:
        if stuck := region.kept & first.findings.restored:
            names = ", ".join(sorted(str(node.name) for node in stuck))
            raise UsageError(
                f"the in-place result of {names} cannot be written with the operators at hand, as where sizes are "
                "free: export the network with fixed height and width, or keep what was exported with --shift-semantics paper"
            )
    return chosen


def _fold_known(graph: ir.Graph, known: Sequence[Mapping[ir.Value, Array]], emitter: Emitter) -> None:
    """Make computed integers that are the same at all sizes constants of the nodes that read them."""
    for node in graph:
        if any(value in known[0] for value in node.outputs):
            continue
        for index, value in enumerate(node.inputs):
            if value is None or value.producer() is None or value.producer().op_type == "Constant":  # type: ignore[union-attr]
                continue
            arrays = [run[value] for run in known if value in run]
            if (
                len(arrays) == len(known)
                and arrays[0].dtype.kind in "iub"
                and all(np.array_equal(arrays[0], a) for a in arrays)
            ):
                node.replace_input_with(index, emitter.number(arrays[0], "shape"))


def _shapes(graph: ir.Graph, runs: Sequence[_Run]) -> dict[ir.Value, Shapes]:
    """The shape of each value at all sizes."""
    result = {}
    for value in (*graph.inputs, *(v for node in graph for v in node.outputs)):
        shapes = [run.interpreter.shape_of(value) for run in runs]
        if all(shape is not None for shape in shapes):
            result[value] = [shape for shape in shapes if shape is not None]
    return result


def _described(number: int, region: RegionPlan, new: Sequence[ir.Node]) -> Region:
    inputs = dict.fromkeys(
        str(r.value.name) for plan in region.plans.values() for r in plan.roots if r.value is not None
    )
    outputs = tuple(str(value.name) for value in region.leaving)
    before, after = (Counter(n.op_type for n in nodes) for nodes in (region.nodes, [*region.kept, *new]))
    return Region(f"region{number}", tuple(inputs), outputs, before, after)


def _without_plan(chosen: Iterable[RegionPlan]) -> Iterable[LeftAlone]:
    """Scatters that stay, with the reason."""
    for region in chosen:
        kept, stuck = region.kept, set(needed(region.impossible, set(region.nodes)))
        for node in region.nodes:
            if node in kept and node.op_type.startswith("Scatter"):
                reason = (
                    "no operators move its elements alike at every size of the inputs"
                    if node in stuck
                    else "other operators that do the same cost more"
                )
                yield LeftAlone(str(node.name or node.outputs[0].name), reason)
