"""The deployment gate: whether a checkpoint may go onto a machine, from evidence that others can check."""
