"""Reads arrays from untrusted pickles, in a child process without any rights."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from rlcar.errors import DatasetError, RegistryError, reason_of
from rlcar.registry.model_file import Arrays, parse_model
from rlcar.system.regular_file import read_regular

CHILD = Path(__file__).with_name("pickle_child.py")
MAX_RECORDING_BYTES = 1 << 29
_CPU_S, _BYTES_A_CPU_SECOND = 10, 1 << 24
_MEMORY_BYTES = 1 << 29
_COPIES = 5  # of the pickle in the child's memory: its bytes, its arrays and the result
_REFUSED = 3  # the child's exit code with a sentence for its output


def read_recording(path: Path) -> Arrays | list[Arrays]:
    """Returns the arrays of a pickled dictionary, or those of each dictionary of a pickled list.

    Nothing in the pickle is executed. Raises DatasetError.
    """
    try:
        data = read_regular(path, MAX_RECORDING_BYTES, follow_links=False)
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {reason_of(error)}") from None
    memory_bytes = _MEMORY_BYTES + _COPIES * len(data)
    try:
        output = through_child(data, str(path), "recording", memory_bytes)
        arrays, about = parse_model(output, str(path))
    except RegistryError as error:
        sentence = str(error).replace("is not a model that can be read", "cannot be read")
        raise DatasetError(sentence) from None
    if not json.loads(about["metadata"])["is_list"]:
        return arrays
    episodes: dict[str, Arrays] = {}
    for name, array in arrays.items():
        number, _, key = name.partition("/")
        episodes.setdefault(number, {})[key] = array
    return [episodes[number] for number in sorted(episodes)]


def through_child(data: bytes, name: str, kind: str, memory_bytes: int) -> bytes:
    """Returns what the child process makes of a pickle; raises RegistryError if it refuses it.

    `kind` is the first argument of `pickle_child`.
    """
    cpu_s = _CPU_S + len(data) // _BYTES_A_CPU_SECOND
    timeout_s = 2.0 * cpu_s
    with tempfile.TemporaryDirectory(prefix="rlcar-import-") as folder:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", str(CHILD), kind, str(memory_bytes), str(cpu_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={},
            close_fds=True,
        )
        try:
            output, _ = process.communicate(data, timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise RegistryError(f"{name} took more than {timeout_s:g} s to read") from None
        finally:
            process.kill()
            process.wait()
    if process.returncode == _REFUSED:
        sentence = output[:300].decode(errors="replace")
        raise RegistryError(f"{name} is refused: {''.join(c for c in sentence if c.isprintable())}")
    if process.returncode != 0:
        raise RegistryError(
            f"{name} is refused: it needs too much memory or time, or is incomplete"
        )
    return output
