"""The suite of the factory cell: every ability of a model on test episodes, each figure beside its baselines."""
