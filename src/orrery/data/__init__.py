"""Media files and recorded episodes."""
