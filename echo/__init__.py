"""An echo server on rawuring, and its twin on epoll: `python -m echo PORT`.

`connection.py` is what both share about one peer, `service.py` what both share about the whole server; `modes` are the
ways to use a ring, `needs.py` is what each asks of the kernel, and `workers.py` runs several servers on one port.
"""

import sys

if sys.version_info < (3, 10):
    sys.exit("The echo server needs Python 3.10 or later; this is " + sys.version.split()[0])
