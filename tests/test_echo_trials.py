"""What the echo server asks of a kernel before it chooses a mode."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest
from support import needs, release_of, shorten
from support import ring as ring

from echo.modes import trials
from echo.modes.base import Cqe
from echo.needs import AUTO, MODES
from rawuring import BufferRing, Ring, abi
from rawuring.sq import SubmissionQueue


@pytest.mark.parametrize("name", trials.BEHAVIOURS)
def test_a_behaviour_is_found_and_nothing_is_left(ring: Ring, name: str) -> None:
    release = trials.BEHAVIOURS[name][0]
    if name in ("recv_bundle", "whole_buffers"):  # later ones of earlier releases have it too
        needs("6.10", bool(ring.features & abi.Feature.RECVSEND_BUNDLE))
        here = release_of(".".join(os.uname().release.split(".")[:2]))
        needs(release, here >= release_of(release) or trials.has(ring, name))
    else:
        needs(release, ring)
    assert trials.has(ring, name)
    assert trials.has(ring, name)
    ring.submit_and_wait(0)
    assert (ring.completions(), ring.sq.ready, ring.in_flight) == ([], 0, 0)


def without(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Encode as for a kernel that ignores what it does not know: `ioprio` is 0."""
    encode = getattr(SubmissionQueue, name)

    def plain(self: SubmissionQueue, *arguments: Any, **keywords: Any) -> None:
        keywords["ioprio"] = 0
        encode(self, *arguments, **keywords)

    monkeypatch.setattr(SubmissionQueue, name, plain)


def test_a_receive_that_does_not_poll_first(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "prep_recv")
    assert not trials.has(ring, "recv_poll_first")
    assert trials.missing(ring, ["recv_poll_first"]) == "needs Linux 5.19"


def test_an_accept_that_accepts_once(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    needs(trials.BEHAVIOURS["recv_multishot"][0], ring)
    monkeypatch.setattr(SubmissionQueue, "prep_multishot_accept", SubmissionQueue.prep_accept)
    assert not trials.has(ring, "accept_multishot")
    assert trials.missing(ring, MODES["multishot"]) == "needs Linux 5.19"


def test_a_receive_that_receives_once(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    needs(trials.BEHAVIOURS["provided_buffer_ring"][0], ring)

    def once(self: SubmissionQueue, fd: int, addr: int, nbytes: int, msg_flags: int, buf_group: int) -> None:
        self.prep_recv(fd, addr, 1, msg_flags, buf_group=buf_group, sqe_flags=int(abi.SqeFlag.BUFFER_SELECT))

    monkeypatch.setattr(SubmissionQueue, "prep_recv_multishot", once)
    assert not trials.has(ring, "recv_multishot")


def test_a_bundle_that_leaves_a_gap(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("6.10", bool(ring.features & abi.Feature.RECVSEND_BUNDLE))
    monkeypatch.setattr(socket, "MSG_OOB", 0)  # data that nothing keeps apart
    assert not trials.has(ring, "recv_bundle")
    assert trials.missing(ring, MODES["bundle"]) == "needs Linux 6.16"


def test_a_bundle_that_shortens_a_buffer(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("6.10", bool(ring.features & abi.Feature.RECVSEND_BUNDLE))
    recv_bundles = trials._recv_bundles

    def shortening(ring: Ring, fd: int, pool: BufferRing) -> Cqe:
        completion = recv_bundles(ring, fd, pool)
        shorten(pool, 1, 2)
        return completion

    monkeypatch.setattr(trials, "_recv_bundles", shortening)
    assert not trials.has(ring, "whole_buffers")


def test_what_is_missing_is_said_by_release() -> None:
    with Ring(8, mask_features=abi.Feature.RECVSEND_BUNDLE) as ring:
        assert trials.missing(ring, ["RECVSEND_BUNDLE", "CLOSE"]) == "needs Linux 6.10"
        assert trials.missing(ring, ["CLOSE", "RECV"]) is None


def test_what_is_wrong_apart_from_the_kernel_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def buffer_ring(*_: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(Ring, "buffer_ring", buffer_ring)
    with Ring(8) as ring:
        missing = trials.missing(ring, ["provided_buffer_ring"])
    assert missing is not None and missing.startswith("cannot try provided_buffer_ring: ")


def test_every_need_is_an_operation_a_feature_or_a_behaviour() -> None:
    for names in MODES.values():
        assert trials.newest(names)
    assert set(AUTO) < set(MODES)
