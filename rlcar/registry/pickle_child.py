"""Converts a pickle on standard input into safetensors on standard output; run as a child process.

The first argument says what the pickle must hold: `policy` or `recording`. The second is the memory
that the process may use, in bytes, and the third its CPU time, in seconds.

It runs under `python -I -S` and imports only the standard library. Before it reads the first byte
it gives up memory, time, files and sockets. It knows only the names by which NumPy and JAX pickle
arrays, and answers them with its own classes, which check their input; it looks up no other name.
"""

import contextlib
import io
import json
import math
import os
import pickle
import resource
import sys
from typing import Any, NoReturn

_REFUSED = 3
_NOBODY = 65534
_MAX_ARRAYS = 1000
_DTYPES = {"f4": "F32", "f8": "F64", "i4": "I32", "i8": "I64", "b1": "BOOL", "u1": "U8"}
_ARRAY_DTYPES = ("f4", "f8")


class _RefusedError(Exception):
    """The reason, as a sentence whose subject is the pickle."""


class _Dtype:
    """Takes the place of `numpy.dtype`."""

    code: str

    def __new__(cls, code: Any, align: Any = False, copy: Any = False) -> "_Dtype":
        if not isinstance(code, str) or code not in _DTYPES:
            raise _RefusedError(f"it holds an array of dtype {str(code)[:20]!r}")
        made = super().__new__(cls)
        made.code = code
        return made

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", "|", "="):
            raise _RefusedError("it holds a dtype that is not little-endian")
        if len(state) != 8 or any(part is not None for part in state[2:5]):
            raise _RefusedError("it holds a dtype with fields")


class _Array:
    """Takes the place of `numpy.ndarray`: a shape and bytes."""

    shape: tuple[int, ...] | None = None
    code = ""
    data = b""

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise _RefusedError("it holds an array with an invalid state")
        _, shape, dtype, is_fortran, data = state
        self.fill(shape, dtype, is_fortran, data)

    def fill(self, shape: Any, dtype: Any, is_fortran: Any, data: Any) -> None:
        """Sets shape, dtype and bytes if they are valid and fit one another."""
        if not isinstance(shape, tuple) or len(shape) > 4:
            raise _RefusedError("it holds an array with an invalid shape")
        if not all(type(size) is int and 0 <= size < 1 << 28 for size in shape):
            raise _RefusedError(f"it holds an array of shape {str(shape)[:60]}")
        if type(dtype) is not _Dtype:
            raise _RefusedError("it holds an array without a dtype")
        if not isinstance(data, bytes | bytearray):
            raise _RefusedError("it holds an array of objects")
        if math.prod(shape) * int(dtype.code[1]) != len(data):
            raise _RefusedError("it holds an array whose bytes do not fit its shape")
        self.shape, self.code = shape, dtype.code
        self.data = _transposed(shape, int(dtype.code[1]), data) if is_fortran else bytes(data)


def _transposed(shape: tuple[int, ...], size: int, data: bytes | bytearray) -> bytes:
    """Returns column-major bytes in row-major order."""
    if len(shape) < 2:
        return bytes(data)
    if len(shape) > 2:
        raise _RefusedError("it holds a column-major array of more than two axes")
    items = memoryview(data).cast("B" if size == 1 else "I" if size == 4 else "Q")
    return b"".join(items[row :: shape[0]].tobytes() for row in range(shape[0]))


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    if kind is not _Array:
        raise _RefusedError("it makes an array of another class")
    return _Array()


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    made = _Array()
    made.fill(shape, dtype, order == "F", data)
    return made


def _encode(text: Any, encoding: Any) -> bytes:
    """Decodes bytes as pickle protocols below 3 store them."""
    if type(text) is not str or encoding != "latin1":
        raise _RefusedError("it encodes a text")
    return text.encode("latin1")


def _from_jax(function: Any, arguments: Any, state: Any, about: Any) -> _Array:
    if function is not _reconstruct and function is not _from_buffer:
        raise _RefusedError("it makes a JAX array in an unknown way")
    if not isinstance(arguments, tuple):
        raise _RefusedError("it makes a JAX array in an unknown way")
    made = function(*arguments)
    if state is not None:
        made.__setstate__(state)
    return made


_KNOWN = {
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Array,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _encode,
    ("jax._src.array", "_reconstruct_array"): _from_jax,
}


class _Unpickler(pickle.Unpickler):
    """Resolves only the names in `_KNOWN`."""

    def find_class(self, module: str, name: str) -> Any:
        known = _KNOWN.get((module, name))
        if known is None:
            raise _RefusedError(f"it asks for {module[:40]}.{name[:40]}, which is not on the list")
        return known

    def persistent_load(self, identity: Any) -> NoReturn:
        raise _RefusedError("it refers to objects outside itself")


def _give_up_everything(memory_bytes: int, cpu_s: int) -> None:
    if os.geteuid() == 0:  # root could raise the limits again
        with contextlib.suppress(OSError):
            os.setgroups([])
            os.setgid(_NOBODY)
            os.setuid(_NOBODY)
    limits = (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
        # No descriptors beyond the standard three: no file, socket or shared library.
        (resource.RLIMIT_NOFILE, 3),
    )
    for limit, value in limits:
        resource.setrlimit(limit, (value, value))


def _recording(tree: Any) -> tuple[dict[str, _Array], dict[str, Any]]:
    """Returns the arrays of a dictionary, or of a list of dictionaries, one for each episode."""
    is_list = type(tree) is not dict
    if not is_list:
        parts = {"": tree}
    elif type(tree) is list and tree and all(type(part) is dict for part in tree):
        parts = {f"{index:06d}/": part for index, part in enumerate(tree)}
    else:
        raise _RefusedError("it is neither a dictionary of arrays nor a list of them")
    arrays: dict[str, _Array] = {}
    for prefix, part in parts.items():
        for name, array in part.items():
            if type(name) is not str or type(array) is not _Array or array.shape is None:
                raise _RefusedError(f"its entry {str(name)[:40]!r} is not an array")
            arrays[f"{prefix}{name}"] = array
    return arrays, {"is_list": is_list}


def _content(tree: Any) -> tuple[dict[str, _Array], dict[str, Any]]:
    if type(tree) is not dict or type(tree.get("params")) is not dict:
        raise _RefusedError("it is not a dictionary with the entry params")
    arrays: dict[str, _Array] = {}
    for module, parts in tree["params"].items():
        if type(module) is not str or type(parts) is not dict:
            raise _RefusedError("its params are not {module: {name: array}}")
        for name, array in parts.items():
            if type(name) is not str or type(array) is not _Array or array.shape is None:
                raise _RefusedError("its params are not {module: {name: array}}")
            if array.code not in _ARRAY_DTYPES:
                raise _RefusedError("its params are not all float32 or float64")
            arrays[f"{module}.{name}"] = array
    if len(arrays) > _MAX_ARRAYS:
        raise _RefusedError(f"it holds {len(arrays)} arrays")
    metadata = tree.get("metadata", {})
    if type(metadata) is not dict or len(metadata) > 100:
        raise _RefusedError("its metadata is not a small dictionary")
    for key, value in metadata.items():
        if type(key) is not str or type(value) not in (str, int, float, bool, type(None)):
            raise _RefusedError("its metadata is not {text: text, number, bool or None}")
        if len(key) > 100 or (type(value) is str and len(value) > 1000):
            raise _RefusedError("its metadata is too long")
    return arrays, metadata


def _safetensors(arrays: dict[str, _Array], metadata: dict[str, Any]) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"metadata": json.dumps(metadata, allow_nan=False)}}
    end = 0
    for name, array in arrays.items():
        start, end = end, end + len(array.data)
        entry = {"dtype": _DTYPES[array.code], "shape": array.shape, "data_offsets": [start, end]}
        header[name] = entry
    text = json.dumps(header).encode()
    parts = [array.data for array in arrays.values()]
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])


def main() -> int:
    """Reads the pickle, writes the result and returns the exit code."""
    kind, memory_bytes, cpu_s = sys.argv[1:]
    _give_up_everything(int(memory_bytes), int(cpu_s))
    read = {"policy": _content, "recording": _recording}[kind]
    try:
        data = sys.stdin.buffer.read()
        tree = _Unpickler(io.BytesIO(data)).load()
        output, code = _safetensors(*read(tree)), 0
    except _RefusedError as error:
        output, code = str(error).encode(errors="replace"), _REFUSED
    except (MemoryError, RecursionError):
        output, code = b"it needs more memory than allowed", _REFUSED
    except Exception:  # a broken pickle can raise almost anything
        output, code = b"it is not a complete pickle of plain values and arrays", _REFUSED
    sys.stdout.buffer.write(output)
    sys.stdout.buffer.flush()
    return code


if __name__ == "__main__":
    # Skips the interpreter's clean-up, which would run code on the objects that were built.
    os._exit(main())
