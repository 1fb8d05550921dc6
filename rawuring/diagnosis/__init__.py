"""Why io_uring cannot be used here, or why a set-up failed: one sentence, and what to do.

May import `abi`, `errors` and `syscalls`. Never prints and never needs a ring. What cannot be
found out is None and lowers the confidence; it raises nothing.

No cause is derived from one errno, since a wrong cause is worse than none:

* `child` does something in a forked child, which a seccomp filter may kill.
* `facts.gather` makes three harmless calls in such children, and reads what the kernel says about
  policy: sysctls, seccomp, capabilities.
* `triage.classify` turns those facts into a diagnosis; `diagnoses` adds what would be in the way
  behind that. Both are pure.
* `request.explain_setup_failure` looks at what was asked for. A flag is unknown to this kernel
  if a trial ring with it is refused: the kernel's release explains that, it never decides it.
* `limits` explains ENOMEM, EMFILE and ENFILE.
"""

from .facts import Facts, gather
from .report import Diagnosis
from .request import explain_setup_failure, is_known, why_unavailable
from .triage import classify, diagnoses

__all__ = [
    "Diagnosis", "Facts", "classify", "diagnoses", "explain_setup_failure", "gather", "is_known", "why_unavailable",
]  # fmt: skip
