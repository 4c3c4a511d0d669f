"""Flow matching: noise schedules, samplers, guidance."""
