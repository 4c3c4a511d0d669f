"""What things are made of, for their weight, friction and sound.

Densities, Young's moduli and Poisson's ratios are textbook values, rounded (Ashby, Materials Selection in Mechanical
Design; wood is beech along the grain for the modulus, across it for `hertz_Pa`). Friction is against a hard, clean and
dry counterpart, an order of magnitude as in any engineering table. Damping (Rayleigh: a mode of angular frequency w
decays as exp(-(alpha + beta w^2) t / 2)) and radiation are chosen by ear and by published modal sounds to the order of
magnitude: they depend on how a thing is held as much as on what it is.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Material:
    """A row of MATERIALS."""

    name: str
    density_kg_m3: float
    youngs_modulus_Pa: float  # noqa: N815 - pascals
    """Sets the frequencies of modes."""
    hertz_Pa: float  # noqa: N815
    """The modulus that a blow on the surface meets; it sets how long a contact lasts. Wood yields across its grain."""
    poisson: float
    damping_alpha_1_s: float
    damping_beta_s: float
    friction: float
    """Coulomb's coefficient."""
    modes: int
    """How many modes are heard at most."""
    radiation: float
    """How much of a mode's motion reaches the air, against steel: a thick wooden board moves air with all its area."""
    roughness: float
    """How loud it is when something slides on it, against steel."""


MATERIALS: dict[str, Material] = {
    row.name: row
    for row in (
        Material(
            name="steel", density_kg_m3=7850.0, youngs_modulus_Pa=2.1e11, hertz_Pa=2.1e11, poisson=0.29,
            damping_alpha_1_s=8.0, damping_beta_s=2e-8, friction=0.5, modes=10, radiation=1.0, roughness=1.0,
        ),
        Material(
            name="brass", density_kg_m3=8500.0, youngs_modulus_Pa=1.0e11, hertz_Pa=1.0e11, poisson=0.34,
            damping_alpha_1_s=10.0, damping_beta_s=4e-8, friction=0.45, modes=10, radiation=1.0, roughness=0.9,
        ),
        Material(
            name="plastic", density_kg_m3=1050.0, youngs_modulus_Pa=2.3e9, hertz_Pa=2.3e9, poisson=0.37,
            damping_alpha_1_s=60.0, damping_beta_s=2e-6, friction=0.4, modes=10, radiation=1.0, roughness=0.6,
        ),
        Material(
            name="wood", density_kg_m3=700.0, youngs_modulus_Pa=1.1e10, hertz_Pa=1.1e9, poisson=0.35,
            damping_alpha_1_s=50.0, damping_beta_s=2e-6, friction=0.5, modes=12, radiation=5.0, roughness=1.2,
        ),
        Material(
            name="rubber", density_kg_m3=1150.0, youngs_modulus_Pa=5.0e6, hertz_Pa=5.0e6, poisson=0.49,
            damping_alpha_1_s=300.0, damping_beta_s=1e-4, friction=1.0, modes=4, radiation=0.3, roughness=0.5,
        ),
        Material(
            name="sheet_steel", density_kg_m3=7850.0, youngs_modulus_Pa=2.1e11, hertz_Pa=2.1e11, poisson=0.29,
            damping_alpha_1_s=9.0, damping_beta_s=8e-9, friction=0.45, modes=14, radiation=1.0, roughness=1.3,
        ),
    )
}  # fmt: skip
