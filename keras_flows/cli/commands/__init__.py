"""One module a command, with `run(flags)`; imported where it is called."""
