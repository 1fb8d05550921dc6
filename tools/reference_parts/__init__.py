"""The parts of docs/reference.md, each a small module of tools/reference.py's."""
