"""Strict reading and writing of safetensors files, for files from untrusted sources.

The format: the length of the header in eight bytes, the header as JSON, the arrays in a row
(https://huggingface.co/docs/safetensors). Nothing in it is ever executed.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from rlcar.errors import RegistryError

Arrays = dict[str, np.ndarray]

MAX_FILE_BYTES = 1 << 30
_MAX_HEADER_BYTES = 1 << 22
_MAX_ARRAYS = 10_000
_MAX_RANK = 8
_MAX_DEPTH = 32  # of JSON
_DTYPES = {
    "BOOL": "bool",
    **{f"F{bits}": f"<f{bits // 8}" for bits in (16, 32, 64)},
    **{f"I{bits}": f"<i{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"<u{bits // 8}" for bits in (8, 16, 32, 64)},
}
_CODES = {np.dtype(dtype): code for code, dtype in _DTYPES.items()}


def model_bytes(
    arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> bytes:
    """Returns a safetensors file; equal arrays make equal bytes."""
    order = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    parts, end = [], 0
    for name in order:
        array = np.ascontiguousarray(arrays[name])
        start, end = end, end + array.nbytes
        code = _CODES[array.dtype]
        header[name] = {"dtype": code, "shape": arrays[name].shape, "data_offsets": [start, end]}
        parts.append(array.tobytes())
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])


def parse_model(data: bytes, name: str) -> tuple[Arrays, dict[str, str]]:
    """Returns the arrays and the metadata of a safetensors file called `name` in messages.

    Raises RegistryError for anything that `model_bytes` could not have written of finite arrays.
    """
    try:
        return _parse(data)
    except ValueError as error:
        raise RegistryError(f"{name} is not a model that can be read: {error}") from None


def _parse(data: bytes) -> tuple[Arrays, dict[str, str]]:
    header, body = _split(data)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(
        isinstance(value, str) for value in metadata.values()
    ):
        raise ValueError("its metadata is not an object of texts")
    if len(header) > _MAX_ARRAYS:
        raise ValueError(f"it has {len(header)} arrays, more than {_MAX_ARRAYS}")
    entries = [_entry(name, value) for name, value in header.items()]
    arrays: Arrays = {}
    end = 0
    for name, (start, stop), dtype, shape in sorted(entries, key=lambda entry: entry[1]):
        if start != end:
            raise ValueError(f"array {name!r} starts at byte {start} instead of {end}")
        end = stop
        if end > len(body):
            raise ValueError(f"array {name!r} ends at byte {end}, but there are {len(body)}")
        array = np.frombuffer(body[start:stop], dtype).reshape(shape).copy()
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"array {name!r} has values that are not finite")
        arrays[name] = array
    if end != len(body):
        raise ValueError(f"{len(body) - end} bytes follow its last array")
    return arrays, metadata


def _split(data: bytes) -> tuple[dict[str, Any], memoryview]:
    """Returns the header and the bytes after it."""
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"it has {len(data)} bytes, more than {MAX_FILE_BYTES}")
    if len(data) < 8:
        raise ValueError(f"it has {len(data)} bytes, too few for a header")
    size = int.from_bytes(data[:8], "little")
    if size > _MAX_HEADER_BYTES:
        raise ValueError(f"its header claims {size} bytes, more than {_MAX_HEADER_BYTES}")
    if size > len(data) - 8:
        raise ValueError(f"its header claims {size} bytes, but {len(data) - 8} follow")
    header = parse_json(data[8 : 8 + size], "its header")
    if not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")
    return header, memoryview(data)[8 + size :]


def _entry(name: str, value: Any) -> tuple[str, tuple[int, int], np.dtype, tuple[int, ...]]:
    if not name.isprintable() or len(name) > 200:
        raise ValueError(f"an array is called {name[:40]!r}")
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"array {name!r} is not described by dtype, shape and data_offsets")
    code, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(code, str) or code not in _DTYPES:
        raise ValueError(f"array {name!r} has the dtype {str(code)[:20]!r}")
    if not _are_sizes(shape) or len(shape) > _MAX_RANK:
        raise ValueError(f"array {name!r} has the shape {str(shape)[:60]}")
    if not _are_sizes(offsets) or len(offsets) != 2:
        raise ValueError(f"array {name!r} has the offsets {str(offsets)[:60]}")
    dtype = np.dtype(_DTYPES[code])
    wanted = math.prod(shape) * dtype.itemsize
    if offsets[1] - offsets[0] != wanted:
        raise ValueError(
            f"array {name!r} needs {wanted} bytes, but its offsets hold {offsets[1] - offsets[0]}"
        )
    return name, (offsets[0], offsets[1]), dtype, tuple(shape)


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(
        type(value) is int and 0 <= value <= MAX_FILE_BYTES for value in values
    )


def parse_json(data: bytes, what: str) -> Any:
    """Parses JSON from an untrusted source.

    Raises ValueError for duplicate keys, NaN, infinities, and too many levels.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        tree = dict(pairs)
        if len(tree) != len(pairs):
            raise ValueError(f"{what} names something twice")
        return tree

    def finite(text: str) -> float:
        value = float(text)
        if not math.isfinite(value):
            raise ValueError(f"{what} holds {text[:20]}")
        return value

    try:
        tree = json.loads(
            data.decode(), object_pairs_hook=unique, parse_float=finite, parse_constant=finite
        )
        if _depth(tree) > _MAX_DEPTH:
            raise RecursionError
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{what} is not JSON: {error}") from None
    except RecursionError:
        raise ValueError(f"{what} is nested too deeply") from None
    return tree


def _depth(tree: Any) -> int:
    if isinstance(tree, dict):
        tree = list(tree.values())
    return 1 + max(map(_depth, tree), default=0) if isinstance(tree, list) else 0
