"""From a loaded checkpoint and a request to media."""
