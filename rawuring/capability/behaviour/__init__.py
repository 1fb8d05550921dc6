"""What an opcode's presence does not prove: a tiny round trip for each behaviour, in a child of its own.

May import every room below capability, and its siblings. Never waits for anything without a limit.

* TRIALS is the table of them, in the order of the rows. A report that tries nothing loads no more than this.
* `waiting`, `transfers` and `rings` have a function of each trial's name: it returns a line on what was seen, or
  raises.
* `bench` has what these share: a ring, something to talk to, and the wait for completions.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Final, NamedTuple

from ... import abi
from ..answering import in_child
from ..judging import state_of
from ..report import NOT_RUN, Behaviour


class Trial(NamedTuple):
    """A behaviour, and the module with the function that tries it out."""

    name: str
    title: str
    since: str
    module: str


TRIALS: Final[Mapping[str, Trial]] = {
    trial.name: trial
    for trial in (
        Trial("wait_timeout", "wait with a timeout", abi.Feature.EXT_ARG.since, "waiting"),
        Trial("linked_requests", "linked requests", abi.SqeFlag.IO_LINK.since, "waiting"),
        Trial("linked_timeout", "linked timeout", abi.Op.LINK_TIMEOUT.since, "waiting"),
        Trial("timeout_multishot", "multishot timeout", abi.Timeout.MULTISHOT.since, "waiting"),
        Trial("poll_multishot", "multishot poll", abi.Poll.ADD_MULTI.since, "waiting"),
        Trial("cancel_fd", "cancel by fd", abi.Cancel.FD.since, "waiting"),
        Trial("cqe_skip_success", "success without a completion", abi.SqeFlag.CQE_SKIP_SUCCESS.since, "waiting"),
        Trial("accept_multishot", "multishot accept", abi.Accept.MULTISHOT.since, "transfers"),
        Trial("recv_multishot", "multishot receive", abi.RecvSend.RECV_MULTISHOT.since, "transfers"),
        Trial("recvmsg_multishot", "multishot recvmsg", abi.RecvSend.RECV_MULTISHOT.since, "transfers"),
        Trial("read_multishot", "multishot read", abi.Op.READ_MULTISHOT.since, "transfers"),
        Trial("recv_poll_first", "receive that polls first", abi.RecvSend.POLL_FIRST.since, "transfers"),
        Trial("provided_buffers", "provided buffers, legacy kind", abi.Op.PROVIDE_BUFFERS.since, "transfers"),
        Trial("provided_buffer_ring", "provided-buffer ring", abi.Register.PBUF_RING.since, "transfers"),
        Trial("incremental_buffers", "incremental buffers", abi.PbufRing.INC.since, "transfers"),
        Trial("recv_bundle", "receive bundle", abi.RecvSend.BUNDLE.since, "transfers"),
        Trial("send_bundle", "send bundle", abi.RecvSend.BUNDLE.since, "transfers"),
        Trial("send_zc", "zero-copy send", abi.Op.SEND_ZC.since, "transfers"),
        Trial("registered_buffers", "registered buffers", abi.Register.BUFFERS.since, "transfers"),
        Trial("registered_files", "registered files", abi.Register.FILES.since, "rings"),
        Trial("direct_descriptors", "direct descriptors", abi.Accept.MULTISHOT.since, "rings"),
        Trial("msg_ring", "message to another ring", abi.MsgRingCommand.DATA.since, "rings"),
        Trial("msg_ring_fd", "file to another ring", abi.MsgRingCommand.SEND_FD.since, "rings"),
        Trial("registered_ring_fd", "registered ring fd", abi.Register.RING_FDS.since, "rings"),
        Trial("sqpoll", "SQPOLL", abi.Setup.SQPOLL.since, "rings"),
        Trial("cq_overflow", "CQ overflow loses nothing", abi.Feature.NODROP.since, "rings"),
    )
}


def rows(run: bool, release: str) -> tuple[Behaviour, ...]:
    """Every behaviour; with `run` tried out, else as not run."""
    return tuple(try_out(trial, release) if run else _not_run(trial) for trial in TRIALS.values())


def try_out(trial: Trial, release: str) -> Behaviour:
    from .bench import attempt

    work = getattr(import_module(f"{__name__}.{trial.module}"), trial.name)
    found = in_child(lambda: attempt(work))
    present, detail = found or (None, "the process that tried it was ended, or did not answer")
    return Behaviour(trial.name, trial.title, trial.since, present, state_of(present, trial.since, release), detail)


def _not_run(trial: Trial) -> Behaviour:
    return Behaviour(trial.name, trial.title, trial.since, None, NOT_RUN, "not run")
