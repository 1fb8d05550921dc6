"""What io_uring can do here, and if not, why: python3 tools/probe.py [OPTION ...]

The same program as `python -m rawuring`, for a bare checkout; --help shows the options and the exit statuses. Where
rawuring cannot be imported at all, on another Python or another system, this program still says so in a sentence, or
with --json in a whole report. Every Python from 3.6 on must be able to parse this file: keep to that grammar.
"""

import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
if ROOT not in sys.path:  # run as a program: the path begins with this folder, not with the checkout
    sys.path.insert(0, ROOT)


def explain(problem: str) -> int:
    """Say why there is no probe here, with what of rawuring needs nothing of it."""
    import json
    from importlib import util

    path = os.path.join(ROOT, "rawuring", "probe", "fallback.py")
    spec = util.spec_from_file_location("fallback", path)
    assert spec is not None and spec.loader is not None
    fallback = util.module_from_spec(spec)
    spec.loader.exec_module(fallback)
    if not sys.platform.startswith("linux"):
        problem = "io_uring is a part of Linux, and this is {}".format(sys.platform)
    report = fallback.report(problem + ".")
    is_json = any(argument in ("-j", "--json") for argument in sys.argv[1:])
    try:
        print(json.dumps(report) if is_json else report["verdict"]["summary"], flush=True)
    except OSError:  # nobody reads it: the exit status says enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return int(report["verdict"]["exit_code"])


def run() -> int:
    """The probe, or why there is none."""
    if sys.version_info < (3, 10):
        return explain("rawuring needs Python 3.10 or later; this is {}".format(sys.version.split()[0]))
    try:
        from rawuring.probe import main
    except Exception as error:  # an ImportError in words, or whatever another system lacks
        is_told = isinstance(error, ImportError) and str(error).startswith("rawuring needs")
        return explain(str(error) if is_told else "rawuring cannot be imported: {!r}".format(error))
    return main()


if __name__ == "__main__":
    sys.exit(run())
