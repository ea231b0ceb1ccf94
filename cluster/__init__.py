"""The loop of `rlcar.training.loop` with processes: simulators and one learner as Ray actors."""
