"""Between media and what the model reads and writes."""
