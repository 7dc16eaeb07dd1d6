"""Overlapping statements: found, described, and replayed as PyTorch copies."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.moving_graphs import Moving, numbered, operators, outputs
from s2mlp_deploy.errors import UsageError
from s2mlp_deploy.passes.data_movement import Repair, repair
from s2mlp_deploy.passes.data_movement.statements import overlaps, replay


def assignment(graph: Moving, x: ir.Value, axis: int, size: int, offset: int) -> ir.Value:
    """``x`` after an assignment of a slice to the slice that lies ``offset`` further along ``axis``, as dynamo writes it."""
    read = (0, size - offset) if offset > 0 else (-offset, size)
    written = range(offset, size) if offset > 0 else range(size + offset)
    perm = [axis, *(i for i in range(4) if i != axis)]
    source = graph.add("Slice", x, graph.ints(read[0]), graph.ints(read[1]), graph.ints(axis))
    moved = graph.add(
        "ScatterND",
        graph.add("Transpose", x, perm=perm),
        graph.constant(np.array(written)[:, None]),
        graph.add("Transpose", source, perm=perm),
    )
    return graph.add("Transpose", moved, perm=[perm.index(i) for i in range(4)])  # type: ignore[no-any-return]


def shifted(offset: int, axis: int = 1, computed: bool = True) -> ir.Model:
    graph = Moving()
    x = graph.input((2, 6, 5, 16))
    value = graph.add("Neg", x) if computed else x
    return graph.model(graph.add("Neg", assignment(graph, value, axis, (2, 6, 5, 16)[axis], offset)))


@pytest.mark.parametrize("offset", [1, -1, 2])
@pytest.mark.parametrize("axis", [1, 2])
def test_a_statement_is_described(axis: int, offset: int) -> None:
    (found,) = repair(shifted(offset, axis)).statements
    assert (found.shape, found.axis, found.offset, found.reason) == ((2, 6, 5, 16), axis, offset, None)
    assert found.name == "n4"


@pytest.mark.parametrize(
    ("scopes", "path"),
    [
        ("['', 'net', 'net.0', 'net.0.mlp', 'slice_scatter']", "net.0.mlp"),
        ("['', 'net', 'net', 'slice_scatter']", "net.net"),
        ("['', '0', 'mlp', 'slice_scatter']", "0.mlp"),
        ("['', 'slice_scatter']", ""),
        ("no list", ""),
    ],
)
def test_a_statement_lies_in_the_module_that_dynamo_records(scopes: str, path: str) -> None:
    model = shifted(1)
    next(node for node in model.graph if node.op_type == "ScatterND").metadata_props["pkg.torch.onnx.name_scopes"] = (
        scopes
    )
    assert repair(model).statements[0].scope == path


@pytest.mark.parametrize("offset", [1, -1, 2])
@pytest.mark.parametrize("axis", [1, 2])
def test_in_place_reads_what_it_has_written(axis: int, offset: int) -> None:
    result = repair(shifted(offset, axis), semantics="inplace")
    x = numbered((2, 6, 5, 16))
    expected = np.moveaxis(x.copy(), axis, 0)
    for i in range(offset, len(expected)) if offset > 0 else range(len(expected) + offset):
        expected[i] = expected[i - offset]
    np.testing.assert_array_equal(outputs(result.model, {"x": x})[0], np.moveaxis(expected, 0, axis))


@pytest.mark.parametrize("offset", [1, -1])
def test_in_place_results_come_at_any_size(offset: int) -> None:
    graph = Moving()
    x = graph.add("Neg", graph.input(("batch", "height", "width", 16)))
    rows = graph.add("Transpose", x, perm=[1, 0, 2, 3])
    size = graph.add("Gather", graph.add("Shape", x), graph.constant(np.array(1)), axis=0)
    numbers = graph.add("Range", graph.constant(np.array(0)), size, graph.constant(np.array(1)))
    bounds = (graph.ints(max(offset, 0)), graph.ints(min(offset, 0) or 2**63 - 1))
    others = (graph.ints(max(-offset, 0)), graph.ints(min(-offset, 0) or 2**63 - 1))
    indices = graph.add("Unsqueeze", graph.add("Slice", numbers, *bounds), graph.ints(1))
    moved = graph.add("ScatterND", rows, indices, graph.add("Slice", rows, *others, graph.ints(0)))
    model = graph.model(graph.add("Neg", graph.add("Transpose", moved, perm=[1, 0, 2, 3])))
    result = repair(model, semantics="inplace")
    assert result.statements[0].shape == ("?", "?", "?", 16) and operators(result.model)["ScatterND"] == 0
    for shape in ((1, 4, 5, 16), (3, 7, 6, 16)):
        array = numbered(shape)
        expected = array[:, :1].repeat(shape[1], axis=1) if offset > 0 else array[:, [*range(1, shape[1]), -1]]
        np.testing.assert_array_equal(outputs(result.model, {"x": array})[0], expected)


def test_one_statement_of_two_is_restored_by_name() -> None:
    graph = Moving()
    value = graph.add("Neg", graph.input((2, 6, 5, 16)))
    for axis, size in ((1, 6), (2, 5)):
        value = assignment(graph, value, axis, size, 1)
    model = graph.model(graph.add("Neg", value))
    first, second = repair(model).statements
    x = numbered((2, 6, 5, 16))
    results = [
        outputs(repair(model, semantics=dict.fromkeys(names, "inplace")).model, {"x": x})[0]
        for names in ((), (first.name,), (second.name,), (first.name, second.name))
    ]
    assert len({result.tobytes() for result in results}) == 4
    both = np.broadcast_to(x[:, :1, :1], x.shape)
    np.testing.assert_array_equal(results[3], both)


def test_a_name_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match="no overlapping statement elsewhere; it has n4"):
        repair(shifted(1), semantics={"elsewhere": "inplace"})


def test_neighbouring_elements_are_not_restored() -> None:
    (found,) = repair(shifted(1, axis=3)).statements
    assert found.reason is not None and "several at a time" in found.reason
    with pytest.raises(UsageError, match="several at a time"):
        repair(shifted(1, axis=3), semantics="inplace")


def without_statements(kind: str) -> Repair:
    graph = Moving()
    x = graph.add("Neg", graph.input((2, 6, 5, 16)))
    if kind == "zeros":  # ShiftViT: a slice of another buffer
        target = graph.constant(np.zeros((2, 6, 5, 16), np.float32))
        rows = graph.add("Slice", x, graph.ints(0), graph.ints(4), graph.ints(1))
        rows = graph.add("Transpose", rows, perm=[1, 0, 2, 3])
        turned = graph.add("Transpose", target, perm=[1, 0, 2, 3])
        value = graph.add("ScatterND", turned, graph.constant(np.arange(1, 5)[:, None]), rows)
    elif kind == "roll":
        last = graph.add("Slice", x, graph.ints(-1), graph.ints(2**63 - 1), graph.ints(1))
        value = graph.add("Concat", last, graph.add("Slice", x, graph.ints(0), graph.ints(-1), graph.ints(1)), axis=1)
    elif kind == "apart":  # a slice that is not written
        source = graph.add("Slice", x, graph.ints(3), graph.ints(4), graph.ints(0 + 1))
        turned, row = (graph.add("Transpose", v, perm=[1, 0, 2, 3]) for v in (x, source))
        value = graph.add("ScatterND", turned, graph.constant(np.array([[0]])), row)
    elif kind == "copied":  # a Concat is new memory
        copy = graph.add("Concat", x, graph.add("Exp", x), axis=0)
        source = graph.add("Slice", x, graph.ints(0), graph.ints(4), graph.ints(1))
        both = graph.add("Concat", source, source, axis=0)
        turned, rows = (graph.add("Transpose", v, perm=[1, 0, 2, 3]) for v in (copy, both))
        value = graph.add("ScatterND", turned, graph.constant(np.arange(1, 5)[:, None]), rows)
    else:  # computed in between
        source = graph.add("Exp", graph.add("Slice", x, graph.ints(0), graph.ints(4), graph.ints(1)))
        turned, rows = (graph.add("Transpose", v, perm=[1, 0, 2, 3]) for v in (x, source))
        value = graph.add("ScatterND", turned, graph.constant(np.arange(1, 5)[:, None]), rows)
    return repair(graph.model(graph.add("Neg", value)))


@pytest.mark.parametrize("kind", ["zeros", "roll", "apart", "copied", "computed"])
def test_other_movement_is_no_statement(kind: str) -> None:
    assert without_statements(kind).statements == ()


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.data())
def test_a_replay_copies_one_element_after_another(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, 12))
    written = np.array(data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=size, unique=True)))
    read = np.array(data.draw(st.lists(st.integers(0, size - 1), min_size=len(written), max_size=len(written))))
    memory = np.arange(100, 100 + size)
    found = replay(written, read, memory[read])
    for i in np.argsort(written):
        memory[written[i]] = memory[read[i]]
    np.testing.assert_array_equal(found, memory[written])
    assert overlaps(written, read) == (bool(set(written) & set(read)) and not np.array_equal(written, read))
