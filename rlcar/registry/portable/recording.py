"""Records the operations of a policy in NumPy as a graph, which other formats are written from.

The policy runs once on arrays that remember how they were made, by NumPy's own protocols for such
arrays (NEP 13 and NEP 18). So the policy that servers run is the only description of a policy, and
an algorithm needs no code for its export. The policy must use the operations below, and must not
use the number of its observations: `x.reshape(-1, 3)` instead of `x.reshape(len(x), 3)`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from rlcar.agents.numpy_network import Arrays, NumpyNetwork
from rlcar.errors import RegistryError

INPUT, CONSTANT = "input", "constant"
ELEMENTWISE = (
    *("add", "subtract", "multiply", "divide", "maximum", "minimum"),
    *("tanh", "sqrt", "sign", "log1p", "absolute", "equal"),
)
PRODUCTS = ("matmul", "vecdot")
# Results that share the memory of their operand in NumPy.
VIEWS = ("reshape", "swapaxes", "getitem")

CALLS: dict[str, Callable[..., np.ndarray]] = {
    **{name: getattr(np, name) for name in (*ELEMENTWISE, *PRODUCTS, "reshape", "swapaxes")},
    "getitem": lambda x, index: x[index],
    "argmax": lambda x: np.argmax(x, axis=-1),
    "concatenate": lambda *parts, axis: np.concatenate(parts, axis=axis),
    "where": np.where,
    "astype": lambda x, dtype: x.astype(dtype),
}
_USES_NUMBER = "a recorded policy must not use the number of observations"
_CHECKED_BATCH, _CHECKED_STEPS, _TOLERANCE = 3, 4, 1e-5


class NotPortableError(RegistryError):
    """A policy does something that cannot be recorded, or that a format cannot express."""


@dataclass(frozen=True, eq=False)
class Value:
    """An array of a graph: an input, a constant, or the result of an operation."""

    operation: str  # a key of CALLS, INPUT or CONSTANT
    example: np.ndarray  # the array itself, for one observation
    operands: tuple["Value", ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""  # of an input, and of a constant that is one of the policy's arrays


class Graph(NamedTuple):
    """A policy's step as operations; an episode begins with a state of zeros."""

    observation: Value  # [1, F]
    state: tuple[Value, ...]  # each [1, D]; without those that no action depends on
    action: Value  # [1, A]
    next_state: tuple[Value, ...]

    def values(self) -> list[Value]:
        """Returns every value that the results need, each after its operands; inputs first."""
        return _ordered([self.observation, *self.state, self.action, *self.next_state])

    def run(
        self, observation: np.ndarray, state: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """Returns actions and next states in NumPy, as the policy does."""
        results = {self.observation: observation, **dict(zip(self.state, state, strict=True))}
        for value in self.values():
            if value.operation == CONSTANT:
                results[value] = value.example
            elif value.operation != INPUT:
                operands = [results[operand] for operand in value.operands]
                results[value] = CALLS[value.operation](*operands, **value.options)
        return results[self.action], tuple(results[value] for value in self.next_state)


def record(network: NumpyNetwork, observation_size: int, arrays: Arrays) -> Graph:
    """Returns the graph of a policy's step; constants get the names of `arrays`.

    Raises NotPortableError if the policy does something that cannot be recorded, also if the
    graph then differs from the policy on random observations.
    """
    names = {id(array): name for name, array in arrays.items()}
    observation = _input("observation", observation_size)
    inputs = [_input(f"state_{index}", width) for index, width in enumerate(network.widths)]
    action, state = network.step(
        tuple(RecordedArray(value, names) for value in inputs),  # type: ignore[misc]
        RecordedArray(observation, names),  # type: ignore[arg-type]
        np.zeros(1, bool),
    )
    results = [_value_of(array) for array in (action, *state)]
    needed = _needed_states(inputs, results)
    graph = Graph(
        observation,
        tuple(inputs[index] for index in needed),
        results[0],
        tuple(results[1 + index] for index in needed),
    )
    _check(graph, network, needed)
    return graph


def _input(name: str, width: int) -> Value:
    return Value(INPUT, np.zeros((1, width), np.float32), name=name)


def _value_of(array: Any) -> Value:
    if not isinstance(array, RecordedArray):
        raise NotPortableError("a result of the policy depends on none of its inputs")
    return array.value


def _needed_states(inputs: Sequence[Value], results: Sequence[Value]) -> list[int]:
    """Returns the parts of the state on which an action, now or later, depends."""
    needed: list[int] = []
    while True:
        wanted = [results[0], *(results[1 + index] for index in needed)]
        found = _ordered(wanted)
        more = [index for index, value in enumerate(inputs) if value in found]
        if more == needed:
            return needed
        needed = more


def _ordered(wanted: Iterable[Value]) -> list[Value]:
    order: dict[Value, None] = {}

    def visit(value: Value) -> None:
        if value not in order:
            for operand in value.operands:
                visit(operand)
            order[value] = None

    for value in wanted:
        visit(value)
    return list(order)


def _check(graph: Graph, network: NumpyNetwork, needed: Sequence[int]) -> None:
    """Raises NotPortableError unless the graph acts like the policy, for several cars at once.

    Products may round otherwise in other places of the memory, so the bits need not be equal.
    """
    rng, batch = np.random.default_rng(0), _CHECKED_BATCH
    state = tuple(np.zeros((batch, width), np.float32) for width in network.widths)
    own: tuple[np.ndarray, ...] = tuple(state[index] for index in needed)
    for _ in range(_CHECKED_STEPS):
        observation = rng.normal(size=(batch, graph.observation.example.shape[1]))
        observation = observation.astype(np.float32)
        with np.errstate(all="ignore"):
            wanted, state = network.step(state, observation, np.zeros(batch, bool))
            try:
                action, own = graph.run(observation, own)
            except ValueError:  # a size that was recorded fits one observation alone
                raise NotPortableError(_USES_NUMBER) from None
        pairs = [(action, wanted), *zip(own, (state[i] for i in needed), strict=True)]
        if not all(np.allclose(*pair, rtol=0.0, atol=_TOLERANCE, equal_nan=True) for pair in pairs):
            raise NotPortableError("its recorded operations answer otherwise than the policy")


class RecordedArray(NDArrayOperatorsMixin):
    """Stands for an array while a policy runs, and remembers how it was made."""

    def __init__(self, value: Value, names: Mapping[int, str]):
        self.value, self._names = value, names

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape for one observation."""
        return self.value.example.shape

    @property
    def dtype(self) -> np.dtype:
        """The type of the numbers."""
        return self.value.example.dtype

    def __len__(self) -> int:
        raise NotPortableError(_USES_NUMBER)

    def __bool__(self) -> bool:
        raise NotPortableError("a recorded policy must not branch on its inputs")

    def __array__(self, *arguments: Any, **options: Any) -> np.ndarray:
        raise NotPortableError("a recorded policy used an array in a way that NumPy hides")

    def __getitem__(self, index: Any) -> "RecordedArray":
        return self._made("getitem", [self], index=index)

    def reshape(self, *shape: int) -> "RecordedArray":
        """Records `np.reshape`."""
        return self._made("reshape", [self], shape=shape)

    def swapaxes(self, axis1: int, axis2: int) -> "RecordedArray":
        """Records `np.swapaxes`."""
        return self._made("swapaxes", [self], axis1=axis1, axis2=axis2)

    def astype(self, dtype: Any) -> "RecordedArray":
        """Records the conversion to another type."""
        return self._made("astype", [self], dtype=np.dtype(dtype))

    def __array_ufunc__(
        self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = None, **options: Any
    ) -> "RecordedArray":
        name = ufunc.__name__
        if method != "__call__" or name not in (*ELEMENTWISE, *PRODUCTS) or options:
            raise NotPortableError(f"np.{name} cannot be recorded in this way")
        result = self._made(name, inputs)
        if out is None:
            return result
        # The name that the policy knows the array by now means its new content.
        (target,) = out
        if not isinstance(target, RecordedArray) or target.value.operation in (*VIEWS, INPUT):
            raise NotPortableError(f"np.{name} cannot be recorded into a part of an array")
        target.value = result.value
        return target

    def __array_function__(
        self, function: Any, types: Any, inputs: Any, options: Any
    ) -> "RecordedArray":
        if function is np.concatenate:
            parts = inputs[0]
            axis = options.get("axis", 0) % len(parts[0].shape)
            return self._made("concatenate", parts, axis=axis)
        if function is np.clip:
            x, low, high = inputs
            return np.minimum(np.maximum(x, low), high)
        if function is np.where:
            return self._made("where", inputs)
        if function is np.argmax and options in ({"axis": -1}, {"axis": len(self.shape) - 1}):
            return self._made("argmax", inputs)
        raise NotPortableError(f"np.{function.__name__} cannot be recorded in this way")

    def _made(self, operation: str, inputs: Sequence[Any], **options: Any) -> "RecordedArray":
        arrays = [x.value.example if isinstance(x, RecordedArray) else x for x in inputs]
        with np.errstate(all="ignore"):
            example = np.asarray(CALLS[operation](*arrays, **options))
        numbers = inputs[1:] if operation == "where" else inputs  # where's first is a condition
        dtype = np.result_type(*arrays[-len(numbers) :])  # Python's numbers take part weakly
        operands = tuple(
            x.value if isinstance(x, RecordedArray) else self._constant(x, dtype) for x in inputs
        )
        assert example.dtype in (np.float32, np.int64, np.bool_), (operation, example.dtype)
        return RecordedArray(Value(operation, example, operands, options), self._names)

    def _constant(self, x: Any, dtype: np.dtype) -> Value:
        name = self._names.get(id(x), "")
        x = np.asarray(x)
        return Value(CONSTANT, x if x.dtype == np.bool_ else x.astype(dtype, copy=False), name=name)
