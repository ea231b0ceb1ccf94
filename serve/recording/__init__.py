"""Records served sessions into data sets, in a process beside the server."""
