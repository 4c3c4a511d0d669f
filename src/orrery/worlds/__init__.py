"""Worlds with exact truth."""
