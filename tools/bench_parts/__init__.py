"""The parts of tools/bench.py: one module per thing measured, and what they share."""
