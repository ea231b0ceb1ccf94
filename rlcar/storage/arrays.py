"""Arrays on disk: names for the leaves of a tree, and the bytes of a safetensors file."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors

from rlcar.errors import CheckpointError, NonFiniteError
from rlcar.system.regular_file import MAX_TEXT_BYTES, open_regular

Arrays = dict[str, np.ndarray]


class Rows(NamedTuple):
    """An array `[rows, …]` in another place, read some rows at a time."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[slice], np.ndarray]
    at_once: int  # number of rows to read at a time

    @property
    def itemsize(self) -> int:
        """Bytes of one value."""
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all values."""
        return math.prod(self.shape) * self.itemsize

    def parts(self) -> Iterator[np.ndarray]:
        """Yields the array, some rows at a time."""
        for start in range(0, self.shape[0], self.at_once):
            yield self.read(slice(start, min(start + self.at_once, self.shape[0])))

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        """Reads the whole array."""
        return self.read(slice(0, self.shape[0])).astype(dtype or self.dtype, copy=False)


_DTYPES = {
    code: np.dtype(name)
    for code, name in (
        *(("BOOL", "bool"), ("F16", "float16"), ("BF16", jnp.bfloat16)),
        *(("F32", "float32"), ("F64", "float64")),
        *((f"I{bits}", f"int{bits}") for bits in (8, 16, 32, 64)),
        *((f"U{bits}", f"uint{bits}") for bits in (8, 16, 32, 64)),
    )
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}


def leaf_name(path: tuple[Any, ...]) -> str:
    """Joins a leaf's path with dots: its name in files and error messages."""
    return jax.tree_util.keystr(path, simple=True, separator=".")


def flatten(tree: Any) -> Arrays:
    """Maps names to leaves; raises TypeError for a leaf that no file can hold."""
    arrays: Arrays = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        name = leaf_name(path)
        if name in arrays:
            raise ValueError(f"two arrays of the state would be called {name!r}")
        arrays[name] = storable_array(name, leaf)
    return arrays


def storable_array(name: str, leaf: Any) -> np.ndarray:
    """Returns the leaf as an array; raises TypeError for a dtype that no file can hold."""
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        raise TypeError(f"cannot store {name!r}: a typed PRNG key; use jax.random.PRNGKey")
    array = np.asarray(leaf)
    if array.dtype not in _CODES:
        raise TypeError(f"cannot store {name!r}: dtype {array.dtype} (a {type(leaf).__name__})")
    return array


def check_finite(arrays: Arrays) -> None:
    """Raises NonFiniteError, naming the first array with a NaN or an infinity."""
    for name, array in arrays.items():
        if jnp.issubdtype(array.dtype, jnp.floating) and not np.isfinite(array).all():
            bad = int(np.size(array) - np.isfinite(array).sum())
            raise NonFiniteError(f"{name} has {bad} non-finite of {array.size} values")


def _shape_and_dtype(leaf: Any) -> tuple[tuple[int, ...], np.dtype]:
    array = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
    return tuple(array.shape), np.dtype(array.dtype)


def first_difference(wanted: Mapping[str, Any], stored: Arrays) -> str:
    """Returns how stored names, shapes or dtypes differ from the wanted ones, or nothing."""
    for name, leaf in wanted.items():
        if name not in stored:
            return f"it has no array {name}"
        shape, dtype = _shape_and_dtype(leaf)
        if stored[name].shape != shape:
            return f"{name} has shape {list(stored[name].shape)}, expected {list(shape)}"
        if stored[name].dtype != dtype:
            return f"{name} is {stored[name].dtype}, expected {dtype}"
    surplus = next((name for name in stored if name not in wanted), None)
    return f"it has an array {surplus}, which this architecture lacks" if surplus else ""


def as_like(leaf: Any, array: np.ndarray) -> Any:
    """Returns the array as the kind of value that `leaf` is: NumPy, Python scalar or JAX."""
    if isinstance(leaf, np.ndarray):
        return array
    if isinstance(leaf, bool | int | float | np.generic):
        return type(leaf)(array[()])
    return jnp.array(array)


def safetensors_bytes(arrays: Mapping[str, np.ndarray | Rows]) -> Iterator[bytes | memoryview]:
    """Yields the file's bytes; the library's own writer would copy the replay buffer twice."""
    # The widest types first keep each array aligned; names make equal arrays equal files.
    order = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    header: dict[str, Any] = {}
    end = 0
    for name in order:
        start, end = end, end + arrays[name].nbytes
        entry = {"dtype": _CODES[arrays[name].dtype], "shape": arrays[name].shape}
        header[name] = {**entry, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in order:
        array = arrays[name]
        for part in array.parts() if isinstance(array, Rows) else [array]:
            yield np.ascontiguousarray(part).reshape(-1).view(np.uint8).data


def most_bytes(arrays: Mapping[str, Mapping[str, Any]] | None) -> int | None:
    """Returns an upper bound of the size of a file of such arrays; None without a description."""
    if arrays is None:
        return None
    return 8 * sum(math.prod(array["shape"]) for array in arrays.values()) + MAX_TEXT_BYTES


def read_arrays(path: Path) -> Arrays:
    """Reads a safetensors file into arrays of our own; raises CheckpointError."""
    return {name: np.array(array) for name, array in map_arrays(path).items()}


def map_arrays(path: Path) -> Arrays:
    """Memory-maps the arrays of a safetensors file; raises CheckpointError."""
    try:
        open_regular(path).close()
        with safetensors.safe_open(path, framework="numpy") as file:  # checks the header
            names = list(file.keys())
        data = np.memmap(path, np.uint8, "r")
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
    start = 8 + int.from_bytes(data[:8].tobytes(), "little")
    header = json.loads(data[8:start].tobytes())
    arrays = {}
    for name in names:
        entry = header[name]
        first, end = (start + offset for offset in entry["data_offsets"])
        arrays[name] = data[first:end].view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return arrays
