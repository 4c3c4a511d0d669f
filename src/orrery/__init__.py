"""Orrery: one model that reads, imagines, hears and acts."""
