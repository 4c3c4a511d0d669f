"""Many samples of different shapes in one sequence."""
