"""Writes a recorded policy as one C source file (C99) that needs the mathematical library alone.

Views of arrays, such as slices and transposed axes, are only other ways to index the same array in
C. Every other value is a local array, which one loop or product fills.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rlcar.errors import UserError
from rlcar.registry.portable.recording import CALLS, CONSTANT, INPUT, VIEWS, Graph, Value

# A compiler needs about 1 GB and a minute for a source of this many numbers (70 MB).
MAX_NUMBERS = 1 << 22
_TYPES = {"f": "float", "i": "int", "b": "int"}
_EXPRESSIONS = {
    **{"add": "{0} + {1}", "subtract": "{0} - {1}", "multiply": "{0} * {1}", "divide": "{0} / {1}"},
    **{"maximum": "{0} > {1} ? {0} : {1}", "minimum": "{0} < {1} ? {0} : {1}"},
    **{"tanh": "tanhf({0})", "sqrt": "sqrtf({0})", "log1p": "log1pf({0})"},
    **{"absolute": "fabsf({0})", "sign": "(float)(({0} > 0.0f) - ({0} < 0.0f))"},
    **{"equal": "{0} == {1}", "where": "{0} ? {1} : {2}", "astype": "{0}"},
}

_SOURCE = """\
// A policy for one car, written by rlcar. It needs C99 and the mathematical library:
//     cc -O3 -c policy.c
// To use it from another file, include it there after #define RLCAR_POLICY_DECLARATIONS, which
// leaves out the definitions.
//
{about}

#ifndef RLCAR_POLICY_H
#define RLCAR_POLICY_H
#ifdef __cplusplus
extern "C" {{
#endif
#define RLCAR_OBSERVATION_SIZE {observation_size}
#define RLCAR_ACTION_SIZE {action_size}

// What one car's policy remembers; a policy without memory has a member that is not used.
struct rlcar_policy {{
{members}}};

// Begins an episode.
void rlcar_policy_init(struct rlcar_policy *policy);

// Reads an observation [RLCAR_OBSERVATION_SIZE], and writes the action [RLCAR_ACTION_SIZE], each
// from -1 to 1. Returns 0; or 1, without changing anything, if a number is not finite.
int rlcar_policy_act(struct rlcar_policy *policy, const float *observation, float *action);

#ifdef __cplusplus
}}
#endif
#endif

#ifndef RLCAR_POLICY_DECLARATIONS

#include <math.h>
#include <string.h>

{constants}
// Adds the product of a [rows, inner] and b [inner, columns] to y [rows, columns].
static void rlcar_add_product(const float *a, int row_stride, int stride, const float *b,
                              int b_stride, float *restrict y, int rows, int inner, int columns) {{
    for (int row = 0; row < rows; row++, a += row_stride, y += columns) {{
        const float *x = a, *m = b;
        int left = inner;
        for (; left >= 4; left -= 4, x += 4 * stride, m += 4 * b_stride) {{
            const float x0 = x[0], x1 = x[stride], x2 = x[2 * stride], x3 = x[3 * stride];
            for (int j = 0; j < columns; j++)
                y[j] += x0 * m[j] + x1 * m[b_stride + j] + x2 * m[2 * b_stride + j] +
                        x3 * m[3 * b_stride + j];
        }}
        for (; left > 0; left--, x += stride, m += b_stride)
            for (int j = 0; j < columns; j++) y[j] += x[0] * m[j];
    }}
}}

static int rlcar_are_finite(const float *x, int size) {{
    for (int i = 0; i < size; i++)
        if (!isfinite(x[i])) return 0;
    return 1;
}}

void rlcar_policy_init(struct rlcar_policy *policy) {{
    memset(policy, 0, sizeof *policy);
}}

int rlcar_policy_act(struct rlcar_policy *policy, const float *observation, float *action) {{
    if (!rlcar_are_finite(observation, RLCAR_OBSERVATION_SIZE)) return 1;
{body}    if (!rlcar_are_finite(result_0, RLCAR_ACTION_SIZE)) return 1;
{results}    return 0;
}}

#endif
"""


class _Array(NamedTuple):
    """A value of the graph as a part of an array in C."""

    name: str  # empty for a single constant number, which has a literal
    type: str
    positions: np.ndarray  # of its numbers in that array; a view of 0, 1, 2, ...
    literal: str = ""

    def strides(self) -> list[int]:
        """Returns the distance in the C array along each axis; 0 along an axis of size 1."""
        size = self.positions.itemsize
        steps = zip(self.positions.shape, self.positions.strides, strict=True)
        return [stride // size if length > 1 else 0 for length, stride in steps]

    def at(self, axes: Sequence[str]) -> str:
        """Returns the C expression of an element, for the names of the first axes."""
        if not self.name:
            return self.literal
        terms = [
            axis if stride == 1 else f"{stride} * {axis}"
            for axis, stride in zip(axes, self.strides(), strict=False)
            if stride
        ]
        first = int(self.positions.flat[0])
        return f"{self.name}[{' + '.join([*terms, str(first)] if first or not terms else terms)}]"

    def over(self, shape: tuple[int, ...]) -> "_Array":
        """Returns the array broadcast to a shape."""
        return self._replace(positions=np.broadcast_to(self.positions, shape))


def c_bytes(graph: Graph, properties: Mapping[str, Any]) -> bytes:
    """Returns the source of the policy for one car; the properties stand in it as comments.

    Raises UserError if the policy has more numbers than a compiler can be given.
    """
    numbers = sum(value.example.size for value in graph.values() if value.operation == CONSTANT)
    if numbers > MAX_NUMBERS:
        raise UserError(
            f"the policy has {numbers:,} numbers, more than the {MAX_NUMBERS:,} that a C file may "
            "hold: export it with --format onnx"
        )
    return _Writer(graph).source(properties).encode("ascii")


class _Writer:
    """Collects the constants and the statements of a policy."""

    def __init__(self, graph: Graph):
        self._graph = graph
        self._constants: list[str] = []
        self._body: list[str] = []
        self._arrays: dict[Value, _Array] = {}
        self._made = 0
        for value in graph.values():
            self._arrays[value] = self._write(value)

    def source(self, properties: Mapping[str, Any]) -> str:
        """Returns the whole file."""
        graph, results = self._graph, []
        for index, value in enumerate((graph.action, *graph.next_state)):
            name, size = f"result_{index}", value.example.size
            self._fill(_new(name, value), "{0}", self._arrays[value])
            target = f"policy->{graph.state[index - 1].name}" if index else "action"
            results.append(f"    memcpy({target}, {name}, {size} * sizeof(float));\n")
        if not graph.state:
            results.append("    (void)policy;\n")
        sizes = [(value.name, value.example.size) for value in graph.state] or [("unused", 1)]
        return _SOURCE.format(
            about="\n".join(f"// {line}" for line in _described(properties)),
            observation_size=graph.observation.example.size,
            action_size=graph.action.example.size,
            members="".join(f"    float {name}[{size}];\n" for name, size in sizes),
            constants="\n".join(self._constants),
            body="".join(f"    {line}\n" for line in self._body),
            results="".join(results),
        )

    def _write(self, value: Value) -> _Array:
        """Writes what makes a value; returns where it is."""
        if value.operation == INPUT:
            is_state = value is not self._graph.observation
            return _new(f"policy->{value.name}" if is_state else value.name, value)
        if value.operation == CONSTANT:
            return self._constant(value)
        operands = [self._arrays[operand] for operand in value.operands]
        if value.operation in VIEWS:
            return self._view(value, operands[0])
        self._made += 1
        target = _new(f"v{self._made}", value)
        if value.operation in _EXPRESSIONS:
            self._fill(target, _EXPRESSIONS[value.operation], *operands)
        else:
            getattr(self, f"_{value.operation}")(target, *operands, **value.options)
        return target

    def _constant(self, value: Value) -> _Array:
        array = value.example
        numbers = [_literal(number) for number in array.ravel().tolist()]
        if array.size == 1:
            return _new("", value)._replace(literal=numbers[0])
        target = _new(f"c{len(self._constants)}", value)
        lines = [", ".join(numbers[i : i + 8]) for i in range(0, len(numbers), 8)]
        self._constants.append(
            f"// {value.name or 'derived'} {list(array.shape)}\n"
            f"static const {target.type} {target.name}[{array.size}] = {{\n"
            + ",\n".join(lines)
            + "};\n"
        )
        return target

    def _view(self, value: Value, x: _Array) -> _Array:
        if value.operation == "reshape" and not x.positions.flags.c_contiguous:
            self._made += 1
            copy = _new(f"v{self._made}", value.operands[0])
            self._fill(copy, "{0}", x)
            x = copy
        return x._replace(positions=CALLS[value.operation](x.positions, **value.options))

    def _fill(self, target: _Array, expression: str, *operands: _Array) -> None:
        self._declare(target)
        self._assign(target, expression, *operands)

    def _declare(self, target: _Array, start: str = "") -> None:
        self._body.append(f"{target.type} {target.name}[{target.positions.size}]{start};")

    def _assign(self, target: _Array, expression: str, *operands: _Array) -> None:
        shape = target.positions.shape
        loops, axes = _loops(shape)
        elements = [operand.over(shape).at(axes) for operand in operands]
        self._body.append(f"{loops}{target.at(axes)} = {expression.format(*elements)};")

    def _concatenate(self, target: _Array, *parts: _Array, axis: int) -> None:
        self._declare(target)
        ends = np.cumsum([part.positions.shape[axis] for part in parts])
        places = np.split(target.positions, ends[:-1], axis)
        for place, part in zip(places, parts, strict=True):
            self._assign(target._replace(positions=place), "{0}", part)

    def _matmul(self, target: _Array, a: _Array, b: _Array) -> None:
        """Writes a product of matrices, for each index of the axes before the last two."""
        (rows, inner), columns = a.positions.shape[-2:], b.positions.shape[-1]
        outer = target.positions.shape[:-2]
        a, b = a.over((*outer, rows, inner)), b.over((*outer, inner, columns))
        loops, axes = _loops(outer)
        row_stride, stride = a.strides()[-2:]
        b_stride, adjacent = b.strides()[-2:]
        if adjacent != 1 and columns > 1:
            raise UserError("a product with a transposed matrix cannot be written in C")
        self._declare(target, " = {0}")
        self._body.append(
            f"{loops}rlcar_add_product(&{a.at(axes)}, {row_stride}, {stride}, &{b.at(axes)}, "
            f"{b_stride}, &{target.at(axes)}, {rows}, {inner}, {columns});"
        )

    def _vecdot(self, target: _Array, x: _Array, y: _Array) -> None:
        shape = np.broadcast_shapes(x.positions.shape, y.positions.shape)
        loops, axes = _loops(shape)
        self._declare(target, " = {0}")
        product = " * ".join(part.over(shape).at(axes) for part in (x, y))
        self._body.append(f"{loops}{target.at(axes[:-1])} += {product};")

    def _argmax(self, target: _Array, x: _Array) -> None:
        loops, axes = _loops(x.positions.shape)
        place = target.at(axes[:-1])
        self._declare(target, " = {0}")
        best = x.at([*axes[:-1], place])
        self._body.append(f"{loops}if ({x.at(axes)} > {best}) {place} = {axes[-1]};")


def _described(properties: Mapping[str, Any]) -> Iterator[str]:
    """Yields lines of JSON, which can end no comment."""
    for name, value in properties.items():
        if isinstance(value, list):
            yield f"{name}:"
            yield from (f"    {json.dumps(entry)}" for entry in value)
        else:
            yield f"{name}: {json.dumps(value)}"


def _new(name: str, value: Value) -> _Array:
    positions = np.arange(value.example.size).reshape(value.example.shape)
    return _Array(name, _TYPES[value.example.dtype.kind], positions)


def _loops(shape: Sequence[int]) -> tuple[str, list[str]]:
    """Returns the heads of nested loops over a shape, and the names of its axes."""
    axes = [f"i{axis}" for axis in range(len(shape))]
    heads = [
        f"for (int {axis} = 0; {axis} < {length}; {axis}++) "
        for axis, length in zip(axes, shape, strict=True)
        if length > 1
    ]
    return "".join(heads), axes


def _literal(number: float) -> str:
    return f"{number:.8e}f" if isinstance(number, float) else str(int(number))
