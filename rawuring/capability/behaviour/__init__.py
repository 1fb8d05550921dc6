"""What an opcode's presence does not prove: a tiny round trip for each behaviour, in a child of its own.

May import every room below capability, and its siblings. Never waits for anything without a limit.

* `bench` has what the trials share: a ring, something to talk to, and the wait for completions.
* `waiting`, `transfers` and `rings` have the trials: functions that return a line on what was seen, or
  raise. Their order here is the order of the rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ..answering import in_child
from ..judging import state_of
from ..report import NOT_RUN, Behaviour
from . import rings, transfers, waiting
from .bench import Trial, attempt

TRIALS: Final[Mapping[str, Trial]] = {
    trial.name: trial for trial in (*waiting.TRIALS, *transfers.TRIALS, *rings.TRIALS)
}


def rows(run: bool, release: str) -> tuple[Behaviour, ...]:
    """Every behaviour; with `run` tried out, else as not run."""
    return tuple(try_out(trial, release) if run else _not_run(trial) for trial in TRIALS.values())


def try_out(trial: Trial, release: str) -> Behaviour:
    found = in_child(lambda: attempt(trial))
    present, detail = found or (None, "the process that tried it was ended, or did not answer")
    return Behaviour(trial.name, trial.title, trial.since, present, state_of(present, trial.since, release), detail)


def _not_run(trial: Trial) -> Behaviour:
    return Behaviour(trial.name, trial.title, trial.since, None, NOT_RUN, "not run")
