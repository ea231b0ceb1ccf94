"""Sets a variable that NumPy reads only at its import; the package imports this module first.

A car's matrices are too small to share among threads. On a busy machine OpenBLAS's threads wait for
each other, and the median answer of a server takes 33 ms instead of 2 ms.
"""

import os
import sys

_SERVERS = ("serve", "watch")

if sys.argv[1:2] and sys.argv[1] in _SERVERS:
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
