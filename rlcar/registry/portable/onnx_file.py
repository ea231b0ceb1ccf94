"""Writes a recorded policy as an ONNX model (https://onnx.ai/onnx/intro)."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

import rlcar
from rlcar.errors import UserError
from rlcar.registry.portable.recording import CONSTANT, INPUT, Graph, Value

# Old enough for runtimes of the year 2022, which know every operator below.
_OPSET, _IR_VERSION = 17, 8
_OPERATORS = {
    **{"add": "Add", "subtract": "Sub", "multiply": "Mul", "divide": "Div"},
    **{"maximum": "Max", "minimum": "Min", "tanh": "Tanh", "sqrt": "Sqrt", "sign": "Sign"},
    **{"absolute": "Abs", "equal": "Equal", "matmul": "MatMul", "where": "Where"},
}
BATCH = "batch"


def onnx_bytes(graph: Graph, properties: Mapping[str, Any]) -> bytes:
    """Returns the model, with the properties as its metadata: texts, and other values as JSON.

    Inputs are `observation [batch, F]` and `state_0`, `state_1`, ... `[batch, D]`; outputs are
    `action [batch, A]` and `next_state_0`, ...; all are float32. Raises UserError if the package
    onnx is not installed.
    """
    try:
        import onnx
        from onnx import helper
    except ImportError:
        raise UserError(
            "ONNX is not installed: pip install 'rlcar[onnx]', or export with --format c"
        ) from None
    writer = _Writer()
    writer.write(graph)
    model = helper.make_model(
        helper.make_graph(
            writer.nodes,
            "policy",
            [_described(value.name, value) for value in (graph.observation, *graph.state)],
            [_described(name, value) for name, value in results(graph).items()],
            writer.constants,
        ),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name="rlcar",
        producer_version=rlcar.__version__,
    )
    helper.set_model_props(
        model,
        {
            name: value if isinstance(value, str) else json.dumps(value, allow_nan=False)
            for name, value in properties.items()
        },
    )
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def results(graph: Graph) -> dict[str, Value]:
    """Returns the values that the policy answers, by their names."""
    pairs = zip(graph.state, graph.next_state, strict=True)
    return {"action": graph.action, **{f"next_{old.name}": new for old, new in pairs}}


def _described(name: str, value: Value) -> Any:
    from onnx import TensorProto, helper

    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [BATCH, *value.example.shape[1:]])


class _Writer:
    """Collects the nodes and the constants of a model."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._names: dict[Value, str] = {}
        self._written: set[str] = set()  # the names of constants

    def write(self, graph: Graph) -> None:
        """Writes every value, and gives the results their names."""
        for value in graph.values():
            self._names[value] = self._write(value)
        for name, value in results(graph).items():
            self._node("Identity", [self._names[value]], name)

    def _write(self, value: Value) -> str:
        if value.operation == INPUT:
            return value.name
        if value.operation == CONSTANT:
            return self._constant(value.example, value.name)
        operands = [self._names[operand] for operand in value.operands]
        if value.operation in _OPERATORS:
            return self._node(_OPERATORS[value.operation], operands)
        write = getattr(self, f"_{value.operation}")
        name: str = write(value, *operands)
        return name

    def _node(self, operator: str, operands: list[str], name: str = "", **attributes: Any) -> str:
        from onnx import helper

        name = name or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, operands, [name], name=name, **attributes))
        return name

    def _constant(self, array: Any, name: str = "") -> str:
        from onnx import numpy_helper

        name = name or f"constant_{len(self.constants)}"
        if name not in self._written:
            self._written.add(name)
            self.constants.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def _integers(self, *numbers: int) -> str:
        return self._constant(np.array(numbers, np.int64))

    def _log1p(self, value: Value, x: str) -> str:
        return self._node("Log", [self._node("Add", [x, self._constant(np.float32(1.0))])])

    def _vecdot(self, value: Value, x: str, y: str) -> str:
        product = self._node("Mul", [x, y])
        return self._node("ReduceSum", [product, self._integers(-1)], keepdims=0)

    def _argmax(self, value: Value, x: str) -> str:
        return self._node("ArgMax", [x], axis=-1, keepdims=0)

    def _astype(self, value: Value, x: str) -> str:
        from onnx import helper

        to = helper.np_dtype_to_tensor_dtype(value.options["dtype"])
        return self._node("Cast", [x], to=to)

    def _concatenate(self, value: Value, *parts: str) -> str:
        return self._node("Concat", list(parts), axis=value.options["axis"])

    def _reshape(self, value: Value, x: str) -> str:
        return self._node("Reshape", [x, self._integers(*value.options["shape"])])

    def _swapaxes(self, value: Value, x: str) -> str:
        order = list(range(value.example.ndim))
        axes = value.options["axis1"], value.options["axis2"]
        order[axes[0]], order[axes[1]] = order[axes[1]], order[axes[0]]
        return self._node("Transpose", [x], perm=order)

    def _getitem(self, value: Value, x: str) -> str:
        """Writes slices, and then the new axes."""
        index = value.options["index"]
        index = list(index) if isinstance(index, tuple) else [index]
        rank = value.operands[0].example.ndim
        if Ellipsis in index:
            at = index.index(Ellipsis)
            given = sum(part is not None for part in index) - 1
            index[at : at + 1] = [slice(None)] * (rank - given)
        axis, cuts = 0, []
        for part in index:
            if part is None:
                continue
            if not isinstance(part, slice) or part.step not in (None, 1):
                raise UserError(f"an array's part {part} cannot be written")
            if part != slice(None):
                size = value.operands[0].example.shape[axis]
                cuts.append((axis, *part.indices(size)[:2]))
            axis += 1
        if cuts:
            axes, starts, ends = zip(*cuts, strict=True)
            bounds = [self._integers(*numbers) for numbers in (starts, ends, axes)]
            x = self._node("Slice", [x, *bounds])
        new = [position for position, part in enumerate(index) if part is None]
        return self._node("Unsqueeze", [x, self._integers(*new)]) if new else x
