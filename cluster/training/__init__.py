"""The training loop with simulators and the learner as Ray actors."""
