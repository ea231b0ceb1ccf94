"""Files that want more than to be read: pickles that run code or eat memory, lying safetensors."""

import builtins
import json
import os
import pickle
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

WEIGHTS = {
    "encoder/~/linear_0": (6, 64),
    "encoder/~/linear_1": (64, 32),
    "actor/~/linear_0": (32, 64),
    "actor/~/linear_1": (64, 32),
    "actor/~/linear_2": (32, 2),
}
Params = dict[str, dict[str, Any]]


def documented_params(dtype: Any = np.float32) -> Params:
    rng = np.random.default_rng(0)
    return {
        name: {"w": rng.normal(size=shape).astype(dtype), "b": np.zeros(shape[1], dtype)}
        for name, shape in WEIGHTS.items()
    }


class Call:
    """Pickles as a call of whatever it is given."""

    def __init__(self, function: Any, *arguments: Any):
        self._reduced = function, arguments

    def __reduce__(self) -> Any:
        return self._reduced


def _name(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


_GETATTR, _CALL_1, _CALL_2 = _name("builtins", "getattr"), b"\x85R", b"\x86R"
_SYSTEM = _name("os", "system")


def executing_pickles(canary: Path) -> dict[str, bytes]:
    """Pickles that make `canary` when the ordinary unpickler loads them."""
    touch, source = f"touch {canary}", f"open({str(canary)!r}, 'w')"
    system = Call(os.system, touch)
    inner = pickle.dumps(system)
    nested = canary.with_name("nested.npy")
    nested.write_bytes(inner)
    raw = _text(touch) + _CALL_1 + b"."
    return {
        "os.system": inner,
        "os.system in protocol 0": pickle.dumps(system, protocol=0),
        "os.system in protocol 5": pickle.dumps(system, protocol=5),
        "eval": pickle.dumps(Call(builtins.eval, source)),
        "exec": pickle.dumps(Call(builtins.exec, source)),
        "subprocess": pickle.dumps(Call(subprocess.check_call, ["touch", str(canary)])),
        "open": pickle.dumps(Call(builtins.open, str(canary), "w")),
        "beside good arrays": pickle.dumps({"params": documented_params(), "metadata": system}),
        "in place of an array": pickle.dumps({"params": {"encoder/~/linear_0": {"w": system}}}),
        "as a key": pickle.dumps({system: 1}),
        "a pickle in a pickle": pickle.dumps(Call(pickle.loads, inner)),
        "numpy.load": pickle.dumps(Call(np.load, str(nested), None, True)),
        "INST": b"(" + _text(touch) + b"ios\nsystem\n.",
        "OBJ": b"(" + _SYSTEM + _text(touch) + b"o.",
        "a dotted name": b"\x80\x04" + _text("os") + _text("path.os.system") + b"\x93" + raw,
        "getattr of getattr": _GETATTR
        + _GETATTR
        + _name("os", "path")
        + _text("os")
        + _CALL_2
        + _text("system")
        + _CALL_2
        + raw,
        "a new __setstate__": _name("types", "SimpleNamespace")
        + b")\x81}"
        + _text("__setstate__")
        + _SYSTEM
        + b"sb"
        + _text(touch)
        + b"b.",
        "after a good value": b"N0" + _SYSTEM + raw,
        "map": _name("builtins", "list")
        + _name("builtins", "map")
        + _SYSTEM
        + _text(touch)
        + b"\x85\x86R"
        + _CALL_1
        + b".",
    }


def other_pickles() -> dict[str, bytes]:
    """Pickles that eat memory, dig deep, lie about sizes, or hold what is no plain array."""
    return {**_broken_pickles(), **_greedy_pickles(), **_foreign_pickles()}


def _broken_pickles() -> dict[str, bytes]:
    good = pickle.dumps({"params": documented_params()}, protocol=4)
    return {
        "nothing": b"",
        "a stop alone": b".",
        "half a file": good[: len(good) // 2],
        "a byte short": good[:-1],
        "noise": bytes(range(256)) * 10,
        "a text of 2^60 bytes": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 60) + b"x.",
        "bytes of 2^31": b"\x80\x04B" + struct.pack("<I", (1 << 31) - 1) + b"x.",
        "bytes of 2^62": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b"x.",
        "a bytearray of 2^40": b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"x.",
        "a frame of 2^62": b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"N.",
        "a persistent id": b"Pos.system\n.",
        "a binary persistent id": _text("os.system") + b"Q.",
        "an extension code": b"\x80\x02\x82\x01.",
        "a large extension code": b"\x80\x02\x84\xff\xff\xff\x7f.",
        "protocol 99": b"\x80\x63N.",
        "a call of a text": _text("x") + b")R.",
        "a buffer from elsewhere": b"\x80\x05\x97.",
    }


def _greedy_pickles() -> dict[str, bytes]:
    laughs: list = []
    for _ in range(60):
        laughs = [laughs] * 10
    return {
        "a billion laughs": pickle.dumps({"params": {"a": {"w": laughs}}}),
        "20 million lists": b"(" + b"]" * 20_000_000 + b"l.",
        "a memo index of 2^31": b"\x80\x04Nr" + struct.pack("<I", (1 << 31) - 1) + b".",
        "lists 100,000 deep": b"]" * 100_000 + b"a" * 99_999 + b".",
        "tuples a million deep": b")" + b"\x85" * 1_000_000 + b".",
        "a million marks": b"(" * 1_000_000,
        "a number of a million digits": b"I" + b"9" * 1_000_000 + b"\n.",
        "a number of a megabyte": b"\x8b" + struct.pack("<i", 1 << 20) + b"\x7f" * (1 << 20) + b".",
    }


def _foreign_pickles() -> dict[str, bytes]:
    def weights(array: Any) -> bytes:
        return pickle.dumps({"params": documented_params() | {"actor/~/linear_2": array}})

    def layer(size_out: int, value: float) -> dict[str, np.ndarray]:
        return {"w": np.full((32, size_out), value), "b": np.zeros(size_out)}

    def about(value: Any) -> bytes:
        return pickle.dumps({"params": documented_params(), "metadata": {"a": value}})

    dtype = _name("numpy", "dtype") + _text("f4") + b"\x89\x88\x87R"
    lying = _name("numpy.core.numeric", "_frombuffer") + b"(C\x04abcd" + dtype
    return {
        "a text": pickle.dumps("a model"),
        "no params": pickle.dumps({"weights": documented_params()}),
        "params in a list": pickle.dumps({"params": [documented_params()]}),
        "an array of objects": weights({"w": np.array([{}, []], dtype=object)}),
        "an array of texts": weights({"w": np.array(["x"])}),
        "a record array": weights({"w": np.zeros(2, "f4,i4")}),
        "a complex array": weights({"w": np.zeros(2, "c8")}),
        "a big-endian array": weights({"w": np.zeros(2, ">f4")}),
        "whole numbers": weights({"w": np.zeros((32, 2), "i4"), "b": np.zeros(2, "f4")}),
        "a masked array": weights({"w": np.ma.masked_array(np.zeros(2))}),
        "an array of an array's class": _name("numpy", "ndarray") + b")\x81.",
        "a class with another method": (
            _name("numpy", "ndarray") + b"N}" + _text("fill") + b"Ns\x86b."
        ),
        "a dtype of objects": _name("numpy", "dtype") + _text("O8") + b"\x89\x88\x87R.",
        "a shape that lies": lying + b"M\x00\x10M\x00\x10\x86" + _text("C") + b"tR.",
        "a negative shape": lying + b"J\xff\xff\xff\xff\x85" + _text("C") + b"tR.",
        "another network": pickle.dumps({"params": {"a": {"w": np.zeros(2)}}}),
        "no units": pickle.dumps(
            {
                "params": {
                    name: {"w": np.zeros((0, 0)), "b": np.zeros(0)} for name in documented_params()
                }
            }
        ),
        "three actions": weights(layer(3, 0.0)),
        "NaN": weights(layer(2, np.nan)),
        "beyond float32": weights(layer(2, 1e300)),
        "metadata with a list": about([1]),
        "metadata with NaN": about(float("nan")),
        "metadata that writes to the terminal": about("\x1b]0;owned\x07"),
    }


def safetensors_file(header: Any, body: bytes = b"", size: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + body


def _deep(levels: int) -> dict[str, Any]:
    return {"a": _deep(levels - 1)} if levels else {}


def lying_safetensors(good: bytes) -> dict[str, bytes]:
    """What becomes of a good export when somebody meddles with it."""
    size = int.from_bytes(good[:8], "little")
    header, body = json.loads(good[8 : 8 + size]), good[8 + size :]
    first = next(name for name in header if name.endswith("actor/~/linear_2.b"))
    about = json.loads(header["__metadata__"]["rlcar"])

    def changed(**fields: Any) -> bytes:
        return safetensors_file({**header, first: {**header[first], **fields}}, body)

    def described(digits: str = "", **fields: Any) -> bytes:
        text = json.dumps({**about, "metadata": {**about["metadata"], **fields}})
        text = text.replace('"SEED"', digits) if digits else text
        return safetensors_file({**header, "__metadata__": {"rlcar": text}}, body)

    def renamed(name: str) -> bytes:
        rest = {key: value for key, value in header.items() if key != first}
        return safetensors_file({**rest, name: header[first]}, body)

    start, end = header[first]["data_offsets"]
    config = about["metadata"]["config"]
    text = json.dumps(header)
    return {
        "an empty file": b"",
        "seven bytes": good[:7],
        "a header's length alone": good[:8],
        "half a header": good[: 8 + size // 2],
        "half a body": good[: 8 + size + len(body) // 2],
        "a byte short": good[:-1],
        "a byte more": good + b"x",
        "a header of 2^63": safetensors_file(header, body, 1 << 63),
        "a header longer than the file": safetensors_file(header, body, len(good)),
        "a header of 100 MiB": safetensors_file(b" " * (100 << 20)),
        "a header that is a list": safetensors_file([], body),
        "a header that is no JSON": safetensors_file(b"{nonsense", body),
        "a header that is no UTF-8": safetensors_file(b'{"\xff\xfe": 1}', body),
        "a header that nests deep": safetensors_file(b'{"a":' + b"[" * 500_000, body),
        "the same name twice": safetensors_file((text[:-1] + "," + text[1:]).encode(), body),
        "overlapping arrays": changed(data_offsets=[max(start - 4, 0), max(end - 4, 4)]),
        "a hole between arrays": changed(data_offsets=[start + 4, end + 4]),
        "negative offsets": changed(data_offsets=[-8, 0]),
        "offsets that end before they begin": changed(data_offsets=[end, start]),
        "offsets beyond the file": changed(data_offsets=[1 << 29, (1 << 29) + 8]),
        "three offsets": changed(data_offsets=[start, end, end]),
        "offsets that are no whole numbers": changed(data_offsets=[float(start), float(end)]),
        "a negative size": changed(shape=[-2]),
        "a size of 2^62": changed(shape=[1 << 62, 4]),
        "sizes whose product overflows": changed(shape=[1 << 32, 1 << 32]),
        "a size of true": changed(shape=[True, 2]),
        "another shape": changed(shape=[1, 2]),
        "a rank of 60": changed(shape=[1] * 59 + [2]),
        "another dtype": changed(dtype="I32"),
        "a dtype of objects": changed(dtype="O"),
        "a dtype that is a list": changed(dtype=["F32"]),
        "one field too many": changed(path="/etc/passwd"),
        "a name that climbs": renamed("../../etc/passwd"),
        "a name for the terminal": renamed("\x1b[2J"),
        "an array too few": safetensors_file({"__metadata__": header["__metadata__"]}),
        "NaN": good[: 8 + size + start] + struct.pack("<ff", np.nan, 0) + good[8 + size + end :],
        "infinity": good[: 8 + size + start]
        + struct.pack("<ff", np.inf, 0)
        + good[8 + size + end :],
        "no metadata": safetensors_file(
            {key: value for key, value in header.items() if key != "__metadata__"}, body
        ),
        "metadata that is a list": safetensors_file({**header, "__metadata__": []}, body),
        "metadata that is no JSON": safetensors_file(
            {**header, "__metadata__": {"rlcar": "{"}}, body
        ),
        "metadata with NaN": safetensors_file(
            {**header, "__metadata__": {"rlcar": '{"metadata": NaN}'}}, body
        ),
        "metadata of another kind": safetensors_file(
            {**header, "__metadata__": {"rlcar": '{"metadata": 3}'}}, body
        ),
        "an unknown field": described(command="touch /tmp/x"),
        "a description for the terminal": described(description="\x1b]0;owned\x07"),
        "a description of a megabyte": described(description="x" * (1 << 20)),
        "another algorithm": described(algorithm="sac"),
        "an algorithm of nobody": described(algorithm="__import__('os')"),
        "a config with an unknown setting": described(config={**config, "shell": "touch"}),
        "a config that is too large to build": described(
            config={**config, "documented": {**config["documented"], "hidden_units": 1 << 40}}
        ),
        "a config of a trillion layers": described(
            algorithm="dreamer",
            config={
                **config,
                "algorithm": "dreamer",
                "dreamer": {"world_model": {"encoder_layers": 10**12}},
            },
        ),
        "a world for the terminal": described(config={**config, "world": "\x1b[2J"}),
        "a setting for the terminal": described(config={**config, "\x1b[2J": 1}),
        "a setting that is half a letter": described(config={**config, "\ud800": 1}),
        "a field that is half a letter": described(**{"\ud800": 1}),
        "a config that nests deep": described(config=_deep(200)),
        "a number of 5,000 digits": described(lineage={"seed": "SEED"}, digits="9" * 5000),
        "a number beyond floats": described(lineage={"cost": "SEED"}, digits="1e999"),
        "another observation": described(observation=[]),
        "a lineage that is a text": described(lineage="/etc/passwd"),
    }
