"""The loop of `rlcar.train` with processes: simulators and one learner as Ray actors."""
