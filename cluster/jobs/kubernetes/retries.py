"""When a request is repeated, and after which pause."""

import email.utils
import random
import time
from typing import NamedTuple

# A server that is overloaded, restarting or behind a proxy that has lost it.
TRANSIENT_CODES = frozenset({429, 500, 502, 503, 504})
_LONGEST_RETRY_AFTER_S = 60.0


class Patience(NamedTuple):
    """How often a request is tried, and how the pauses in between grow."""

    attempts: int = 6
    first_pause_s: float = 0.25
    longest_pause_s: float = 8.0


def is_transient(code: int) -> bool:
    """Says whether the same request may succeed later."""
    return code in TRANSIENT_CODES


def pause_s(patience: Patience, attempt: int, retry_after_s: float | None = None) -> float:
    """Returns the pause after a failed attempt, the first of which has number 0.

    The pause doubles with each attempt. A random half of it keeps many clients from repeating
    their requests at the same moment. A server that says how long to wait is obeyed.
    """
    limit_s = min(patience.longest_pause_s, patience.first_pause_s * 2.0 ** min(attempt, 30))
    own_s = limit_s * (0.5 + 0.5 * random.random())
    return own_s if retry_after_s is None else max(own_s, retry_after_s)


def read_retry_after(text: str | None) -> float | None:
    """Reads a header `Retry-After`, in seconds or as a date; None if there is none."""
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(text).timestamp() - time.time()
        except (ValueError, TypeError):
            return None
    return min(max(seconds, 0.0), _LONGEST_RETRY_AFTER_S) if seconds == seconds else None
