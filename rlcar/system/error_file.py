"""The file into which a command writes the error that ends it, for the process that started it.

An exit code says little, and nobody learns that of a process whose parent has died. The variable
RLCAR_ERROR_FILE names the file.
"""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from rlcar.system.durable import replace_text
from rlcar.system.process_state import parse

VARIABLE = "RLCAR_ERROR_FILE"
_LONGEST_SENTENCE = 2000


def write(error: BaseException, sentence: str | None = None) -> None:
    """Writes the types and the sentence of an error, if a file is named; never raises."""
    path = os.environ.get(VARIABLE)
    if not path:
        return
    text = sentence or str(error).split("\n")[0] or type(error).__name__
    tree = {
        "pid": os.getpid(),
        "types": [one.__name__ for one in type(error).__mro__],
        "sentence": text[:_LONGEST_SENTENCE],
    }
    with contextlib.suppress(OSError):
        replace_text(Path(path), json.dumps(tree) + "\n")


def read(path: Path, pid: int) -> dict[str, Any]:
    """Returns the error of a process; empty if it has left none."""
    tree = parse(path)
    return tree if tree.get("pid") == pid else {}
