"""Settings of the whole suite."""

from hypothesis import HealthCheck, settings

import orrery  # noqa: F401 - before torch, whose threads else spin away the time of the tests beside them

# How long an example takes says how busy the machine is, not whether the code is right.
settings.register_profile("orrery", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("orrery")
