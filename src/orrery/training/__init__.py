"""From recorded episodes to weights."""
