"""The `orrery` command: one module per subcommand, and no logic beyond load, call, write."""
