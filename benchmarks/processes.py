"""The programs that benchmarks start: `rlcar.system.programs` under the name known here."""

from rlcar.system.programs import Program, free_port, program, started_by

__all__ = ["Program", "free_port", "program", "started_by"]
