"""How well it was checked."""
