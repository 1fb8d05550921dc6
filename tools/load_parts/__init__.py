"""The parts of tools/load.py: what every load counts, and one module per way to make it."""
