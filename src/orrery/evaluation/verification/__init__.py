"""Is a world model right, and would we notice if it were not? Six rungs, each with a control that must fail.

`interfaces` says what a simulator and a model must offer; `verify` climbs the ladder; every rung is a module.
"""
