"""The operators that a repair writes, form by form, and near misses that stay as they are."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from helpers.moving_graphs import Moving, numbered, operators, outputs, same_bits
from s2mlp_deploy.errors import UsageError
from s2mlp_deploy.passes.data_movement import Repair, repair
from s2mlp_deploy.passes.data_movement.repair import Preference

SHAPE = (2, 5, 3, 8)


def repaired(graph: Moving, value: ir.Value, prefer: Preference = "slice") -> Repair:
    """The repair of a graph whose result is computed from ``value``; bits are compared for input ``x``."""
    model = graph.model(graph.add("Neg", value))
    result = repair(model, prefer=prefer)
    shape = [2 if not isinstance(n, int) else n for n in graph.inputs[0].shape or ()]
    dtype = graph.dtype.numpy()
    feeds = {"x": numbered(shape, dtype)}
    assert same_bits(outputs(model, feeds), outputs(result.model, feeds))
    return result


def moves(result: Repair) -> Counter[str]:
    return operators(result.model) - Counter({"Neg": 1, "Abs": 1})


def start(shape: tuple[int | str, ...] = SHAPE, **kinds: Any) -> tuple[Moving, ir.Value]:
    graph = Moving(**kinds)
    return graph, graph.add("Abs", graph.input(shape))


def test_there_and_back_becomes_nothing() -> None:
    graph, x = start()
    there = graph.add("Transpose", x, perm=[0, 2, 3, 1])
    result = repaired(graph, graph.add("Transpose", there, perm=[0, 3, 1, 2]))
    assert moves(result) == {} and result.regions[0].before == {"Transpose": 2} and result.regions[0].after == {}


def test_two_transposes_become_one() -> None:
    graph, x = start()
    once = graph.add("Transpose", x, perm=[0, 2, 3, 1])
    assert moves(repaired(graph, graph.add("Transpose", once, perm=[0, 2, 3, 1]))) == {"Transpose": 1}


def test_moves_that_keep_the_order_become_a_reshape() -> None:
    graph, x = start()
    flat = graph.add("Flatten", graph.add("Unsqueeze", x, graph.ints(1)), axis=1)
    assert moves(repaired(graph, graph.add("Reshape", flat, graph.ints(2, 15, 8)))) == {"Reshape": 1}


def test_slices_of_slices_become_one() -> None:
    graph, x = start()
    value = x
    for axis in (1, 3, 1):
        value = graph.add("Slice", value, graph.ints(1), graph.ints(2**63 - 1), graph.ints(axis))
    assert moves(repaired(graph, value)) == {"Slice": 1}


def test_a_backward_slice_with_steps_stays_one() -> None:
    graph, x = start()
    value = graph.add("Slice", x, graph.ints(-1), graph.ints(-9), graph.ints(3), graph.ints(-1))
    value = graph.add("Slice", value, graph.ints(0), graph.ints(8), graph.ints(3), graph.ints(2))
    assert moves(repaired(graph, value)) == {"Slice": 1}


def test_zeros_around_a_slice_become_a_pad() -> None:
    graph, x = start()
    part = graph.add("Slice", x, graph.ints(0), graph.ints(-1), graph.ints(1))
    value = graph.add("Concat", graph.constant(np.zeros((2, 1, 3, 8), np.float32)), part, axis=1)
    value = graph.add("Concat", value, graph.constant(np.zeros((2, 5, 2, 8), np.float32)), axis=2)
    assert moves(repaired(graph, value)) == {"Slice": 1, "Pad": 1}


def test_minus_zero_is_no_zero() -> None:
    graph, x = start()
    part = graph.add("Slice", x, graph.ints(0), graph.ints(-1), graph.ints(1))
    part = graph.add("Slice", part, graph.ints(0), graph.ints(3), graph.ints(1))
    negative = graph.constant(np.full((2, 1, 3, 8), -0.0, np.float32))
    assert moves(repaired(graph, graph.add("Concat", negative, part, axis=1)))["Pad"] == 0


def test_an_assignment_with_a_kept_border_becomes_an_edge_pad() -> None:
    graph, x = start()
    perm = [1, 0, 2, 3]
    source = graph.add("Slice", x, graph.ints(0), graph.ints(4), graph.ints(1))
    indices = graph.constant(np.arange(1, 5)[:, None])
    moved = graph.add(
        "ScatterND", graph.add("Transpose", x, perm=perm), indices, graph.add("Transpose", source, perm=perm)
    )
    result = repaired(graph, graph.add("Transpose", moved, perm=perm))
    assert moves(result) == {"Slice": 1, "Pad": 1} and result.regions[0].before["ScatterND"] == 1


@pytest.mark.parametrize(("prefer", "gathers"), [("gather", 1), ("slice", 0)])
def test_rows_are_gathered_where_that_is_preferred(prefer: Preference, gathers: int) -> None:
    graph, x = start()
    first = graph.add("Slice", x, graph.ints(0), graph.ints(4), graph.ints(3))
    second = graph.add("Slice", x, graph.ints(4), graph.ints(8), graph.ints(3))
    last = graph.add("Slice", first, graph.ints(-1), graph.ints(5), graph.ints(1))
    rest = graph.add("Slice", first, graph.ints(0), graph.ints(-1), graph.ints(1))
    rolled = graph.add("Concat", last, rest, axis=1)
    value = graph.add("Concat", rolled, second, axis=3)
    found = moves(repaired(graph, value, prefer))
    assert found["Gather"] == gathers and found["Slice"] == (0 if gathers else 3)


def test_a_repeated_axis_becomes_an_expand() -> None:
    graph, x = start((2, 5, 1, 8))
    value = graph.add("Tile", graph.add("Transpose", x, perm=[0, 2, 1, 3]), graph.ints(1, 3, 1, 1))
    value = graph.add("Transpose", value, perm=[0, 2, 1, 3])
    assert moves(repaired(graph, value)) == {"Expand": 1}


def test_channels_in_another_order_become_one_gather_whatever_is_preferred() -> None:
    graph, x = start((2, 3, 4, 30))
    value = graph.add("Gather", x, graph.ints(*np.random.default_rng(1).permutation(30)), axis=3)
    value = graph.add("Gather", value, graph.ints(*np.random.default_rng(2).permutation(30)), axis=3)
    assert moves(repaired(graph, value, "slice")) == {"Gather": 1}


def test_two_inputs_become_one_concat() -> None:
    graph, x = start()
    y = graph.add("Exp", x)
    both = graph.add("Concat", x, y, axis=1)
    first = graph.add("Slice", both, graph.ints(0), graph.ints(5), graph.ints(1))
    second = graph.add("Slice", both, graph.ints(5), graph.ints(10), graph.ints(1))
    model = graph.model(graph.add("Neg", graph.add("Concat", second, first, axis=1)))
    result = repair(model, prefer="slice")
    feeds = {"x": numbered(SHAPE) / 100}
    assert same_bits(outputs(model, feeds), outputs(result.model, feeds))
    assert operators(result.model) == {"Abs": 1, "Exp": 1, "Neg": 1, "Concat": 1}


def test_depth_to_space_and_back_becomes_nothing() -> None:
    graph, x = start((2, 8, 3, 5))
    value = graph.add("DepthToSpace", x, blocksize=2)
    assert moves(repaired(graph, graph.add("SpaceToDepth", value, blocksize=2))) == {}


def test_values_that_leave_in_between_are_shared() -> None:
    graph, x = start()
    turned = graph.add("Transpose", graph.add("Identity", graph.add("Identity", x)), perm=[0, 2, 3, 1])
    inner = graph.add("Identity", turned)
    model = graph.model(graph.add("Neg", inner), turned)
    result = repair(model)
    feeds = {"x": numbered(SHAPE)}
    assert same_bits(outputs(model, feeds), outputs(result.model, feeds))
    assert operators(result.model)["Transpose"] == 1
    assert [v.name for v in result.model.graph.outputs] == [v.name for v in model.graph.outputs]


def test_an_input_that_takes_a_values_place_keeps_its_type() -> None:
    graph = Moving()
    there = graph.add("Transpose", graph.input(SHAPE), perm=[3, 2, 1, 0])
    result = repaired(graph, graph.add("Transpose", there, perm=[3, 2, 1, 0]))
    (x,) = result.model.graph.inputs
    assert moves(result) == {} and x.dtype == ir.DataType.FLOAT and x.shape == ir.Shape(SHAPE)


def test_an_output_that_is_an_input_keeps_its_name() -> None:
    graph = Moving()
    x = graph.input(SHAPE)
    there = graph.add("Transpose", x, perm=[3, 2, 1, 0])
    model = graph.model(graph.add("Transpose", there, perm=[3, 2, 1, 0]))
    result = repair(model)
    feeds = {"x": numbered(SHAPE)}
    assert same_bits(outputs(model, feeds), outputs(result.model, feeds))
    assert [v.name for v in result.model.graph.outputs] == [v.name for v in model.graph.outputs]


@pytest.mark.parametrize(
    ("op_type", "attributes", "numbers"),
    [
        ("Transpose", {"perm": [0, 2, 3, 1]}, ()),
        ("Reshape", {}, ((2, 15, 8),)),
        ("Slice", {}, ((1,), (4,), (1,))),
        ("Gather", {"axis": 1}, ((0, 4, 2),)),
        ("Pad", {}, ((0, 1, 0, 0, 0, 0, 0, 0),)),
        ("Expand", {}, ((2, 5, 3, 8),)),
    ],
)
def test_a_lone_operator_stays(op_type: str, attributes: dict[str, Any], numbers: tuple[tuple[int, ...], ...]) -> None:
    graph, x = start()
    value = graph.add(op_type, x, *(graph.ints(*n) for n in numbers), **attributes)
    result = repair(graph.model(graph.add("Neg", value)))
    if op_type == "Expand":  # to the shape that it has
        assert "Expand" not in operators(result.model)
    else:
        assert result.regions == () and operators(result.model)[op_type] == 1


def test_arithmetic_ends_a_region() -> None:
    graph, x = start()
    there = graph.add("Transpose", x, perm=[0, 2, 3, 1])
    result = repaired(graph, graph.add("Transpose", graph.add("Exp", there), perm=[0, 3, 1, 2]))
    assert result.regions == () and moves(result)["Transpose"] == 2


@pytest.mark.parametrize("dtype", [ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.INT64, ir.DataType.INT32])
@pytest.mark.parametrize("prefer", ["gather", "slice"])
def test_other_types_move_too(dtype: ir.DataType, prefer: Preference) -> None:
    graph, x = start(dtype=dtype)
    part = graph.add("Slice", x, graph.ints(0), graph.ints(-1), graph.ints(1))
    zeros = graph.constant(np.zeros((2, 1, 3, 8), dtype.numpy()))
    value = graph.add("Concat", part, zeros, axis=1)
    first = graph.add("Slice", value, graph.ints(0), graph.ints(4), graph.ints(3))
    second = graph.add("Slice", x, graph.ints(4), graph.ints(8), graph.ints(3))
    assert repaired(graph, graph.add("Concat", first, second, axis=3), prefer).regions


def test_truth_values_move_too() -> None:
    graph = Moving(dtype=ir.DataType.BOOL)
    x = graph.add("Not", graph.input(SHAPE))
    there = graph.add("Transpose", x, perm=[0, 2, 3, 1])
    model = graph.model(graph.add("Not", graph.add("Transpose", there, perm=[0, 3, 1, 2])))
    result = repair(model)
    feeds = {"x": numbered(SHAPE) % 3 == 0}
    assert same_bits(outputs(model, feeds), outputs(result.model, feeds)) and operators(result.model) == {"Not": 2}


def test_attributes_of_old_operator_sets_are_read() -> None:
    graph, x = start((2, 6, 3, 8), opset=11)
    first, second = graph.add("Split", x, axis=1, split=[2, 4], outputs=2)
    value = graph.add("Concat", first, second, axis=1)
    value = graph.add("Squeeze", graph.add("Unsqueeze", value, axes=[1]), axes=[1])
    assert moves(repaired(graph, value)) == {}


def test_sizes_that_are_free_are_counted_from_the_end() -> None:
    graph, x = start(("batch", "height", "width", 8))
    value = x
    for axis, ends in ((1, (0, -1)), (2, (1, 2**63 - 1))):
        part = graph.add("Slice", value, graph.ints(ends[0]), graph.ints(ends[1]), graph.ints(axis))
        value = graph.add("Pad", part, graph.ints(*(int(i == axis) for i in range(4)), 0, 0, 0, 0), mode="edge")
    value = graph.add("Slice", value, graph.ints(0), graph.ints(-1), graph.ints(1))
    model = graph.model(graph.add("Neg", value))
    result = repair(model)
    assert operators(result.model)["Slice"] == 1
    for shape in ((1, 4, 5, 8), (3, 7, 6, 8)):
        feeds = {"x": numbered(shape)}
        assert same_bits(outputs(model, feeds), outputs(result.model, feeds))


def test_shapes_that_are_the_same_at_every_size_become_constants() -> None:
    graph, x = start(("batch", 6, 8))
    shape = graph.add(
        "Concat", graph.ints(-1), graph.add("Slice", graph.add("Shape", x), graph.ints(2), graph.ints(3)), axis=0
    )
    shape = graph.add("Concat", shape, graph.ints(6), axis=0)
    result = repaired(graph, graph.add("Exp", graph.add("Reshape", x, shape)))
    assert moves(result) == {"Exp": 1, "Reshape": 1}


def test_the_shape_of_a_value_that_is_gone_is_read_elsewhere() -> None:
    graph, x = start(("batch", 5, 3, 8))
    there = graph.add("Transpose", x, perm=[0, 2, 3, 1])
    wider = graph.add("Unsqueeze", there, graph.ints(1))
    shape = graph.add("Shape", wider)
    back = graph.add("Transpose", there, perm=[0, 3, 1, 2])
    model = graph.model(graph.add("Neg", back), shape, dtypes={shape: ir.DataType.INT64})
    result = repair(model)
    assert not {"Transpose", "Unsqueeze"} & set(operators(result.model))
    for batch in (1, 4):
        feeds = {"x": numbered((batch, *SHAPE[1:]))}
        assert same_bits(outputs(model, feeds), outputs(result.model, feeds))


def test_the_input_model_stays_as_it_is() -> None:
    graph, x = start()
    there = graph.add("Transpose", x, perm=[0, 2, 3, 1])
    model = graph.model(graph.add("Neg", graph.add("Transpose", there, perm=[0, 3, 1, 2])))
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    repair(model)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_a_repair_is_the_same_every_time() -> None:
    def once() -> bytes:
        graph, x = start(("batch", 5, 3, 8))
        parts = graph.add("Split", x, graph.ints(2, 2, 4), axis=3, outputs=3)
        value = graph.add("Concat", *reversed(parts), axis=3)
        model = graph.model(graph.add("Neg", value), graph.add("Exp", graph.add("Concat", parts[1], value, axis=3)))
        return bytes(ir.to_proto(repair(model).model).SerializeToString(deterministic=True))

    assert once() == once()


def test_an_operator_set_that_is_too_old_is_refused() -> None:
    graph, x = start(opset=10)
    with pytest.raises(UsageError, match="operator set 10"):
        repair(graph.model(graph.add("Neg", x)))


@pytest.mark.parametrize(
    ("sizes", "count"), [((2, 2, 1), 3), (2, 3), (None, 5)], ids=["sizes", "chunks", "single entries"]
)
def test_a_sequence_that_is_taken_apart_again_goes(sizes: tuple[int, ...] | int | None, count: int) -> None:
    graph = Moving()
    x = graph.add("Abs", graph.input((2, 5, 3)))
    split = () if sizes is None else (graph.constant(np.array(sizes, np.int64)),)
    sequence = graph.add("SplitToSequence", x, *split, axis=1)
    taken = [graph.add("SequenceAt", sequence, graph.constant(np.array(i - count, np.int64))) for i in range(count)]
    model = graph.model(graph.add("Neg", graph.add("Concat", *reversed(taken), axis=1)))
    repaired = repair(model).model
    assert not operators(repaired).keys() & {"SplitToSequence", "SequenceAt"}
    feeds = {"x": numbered((2, 5, 3))}
    assert same_bits(outputs(repaired, feeds), outputs(model, feeds))


def test_a_sequence_that_is_put_together_or_measured_stays() -> None:
    graph = Moving()
    x = graph.add("Abs", graph.input((2, 5, 3)))
    sequence = graph.add("SplitToSequence", x, graph.ints(2, 3), axis=1)
    whole = graph.add("ConcatFromSequence", sequence, axis=2 - 1)
    first = graph.add("SequenceAt", sequence, graph.constant(np.array(0, np.int64)))
    model = graph.model(graph.add("Neg", whole), graph.add("Neg", first))
    repaired = repair(model).model
    assert operators(repaired)["SplitToSequence"] == 1
    feeds = {"x": numbered((2, 5, 3))}
    assert same_bits(outputs(repaired, feeds), outputs(model, feeds))
