"""The program behind `python -m rawuring` and tools/probe.py: what io_uring can do here, and if not, why.

May import `capability` and `hints`. `capability` finds everything out, and this prints it. Whatever is printed,
compared or required is read from the document that --json prints, so that text and JSON cannot disagree. Only those
two programs import this.

* `command` is the course of it, `arguments` its command line.
* `document` is a report as JSON, held against schema.json by `schema`; `fallback` one where nothing can be found out.
* `text` and `page` show a report; `comparing` two of them.
* `requirements` and `programs` say whether what a script or a program needs is there.
"""

from .command import main

__all__ = ["main"]
