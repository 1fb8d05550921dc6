"""The program behind `python -m rawuring` and tools/probe.py: what io_uring can do here, and if not, why.

May import `capability`, and `hints`. `capability` finds everything out; this prints it. Whatever is printed,
compared or required is read from the document that --json prints, so that text and JSON cannot disagree. Nothing
but those two programs imports this.
"""

from .program import main

__all__ = ["main"]
