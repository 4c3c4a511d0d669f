"""How fast a released shape is here, with random weights: `orrery bench --family`.

`bench` runs the rows of `rows` in the ways of `ways`, beside `peers`; `workloads` makes what is worked on.
"""
