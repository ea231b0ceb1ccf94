"""The stages of a run, in their order."""

from cluster.pipeline.context import Stage
from cluster.pipeline.delivering import roll_out
from cluster.pipeline.gating import estimate, simulate
from cluster.pipeline.learning import check, collect, register, train

STAGES = (
    Stage("collect", (), collect),
    Stage("validate", ("data",), check),
    Stage("train", ("data",), train),
    Stage("simulation gate", ("trained_run",), simulate),
    Stage("off-policy gate", ("trained_run", "held_out", "stable"), estimate),
    Stage("register", ("trained_run", "stable"), register),
    Stage("rollout", ("candidate", "stable"), roll_out),
)
