"""What this kernel and sandbox allow, as data, and the diagnosis where they allow no ring.

May import every room below it. Never prints, and leaves nothing behind: whatever asks the kernel
runs in a forked child, so a filter that kills ends that child, and its end undoes what it did.

    >>> report = capability.examine()
    >>> report.verdict.exit_code, report.verdict.summary
    (0, 'io_uring can be used here: ...')

* `report` has the parts of a report; `document` turns one into what JSON can hold.
* `asking` makes the kernel answer: with a ring where one can be had, without one from Linux 6.18 on.
* `judging` holds the answers against the releases in the tables of `abi`. It is pure.
* `access` says what policy and limits there are.
* `behaviour` has a tiny round trip for each of the things that an opcode's presence does not prove.
"""

from .document import SCHEMA, document
from .examining import examine
from .report import Report

__all__ = ["SCHEMA", "Report", "document", "examine"]
