"""The state machine of one echo connection, without a socket."""

from __future__ import annotations

import random

import pytest

from echo.connection import FINISHING, HIGH_WATER, LOST, LOW_WATER, OPEN, Connection

pytestmark = pytest.mark.portable


def test_a_new_connection_wants_to_read_and_nothing_else() -> None:
    connection = Connection()
    assert (connection.state, connection.reading, connection.nqueued) == (OPEN, True, 0)
    assert not connection.finished()


def test_bytes_leave_in_the_order_in_which_they_came() -> None:
    chance = random.Random(2)
    for _ in range(50):
        connection, received, sent = Connection(), bytearray(), bytearray()
        for _ in range(200):
            if chance.random() < 0.5:
                rest = chance.randbytes(chance.randrange(1, 3000))
                connection.keep(rest)
                received += rest
            elif connection.nqueued:
                head = bytes(connection.head())
                nbytes = chance.randrange(len(head) + 1)
                sent += head[:nbytes]
                connection.sent(nbytes)
            assert connection.nqueued == len(received) - len(sent)
        while connection.nqueued:
            sent += connection.head()
            connection.sent(len(connection.head()))
        assert sent == received


def test_bytes_of_an_unfinished_send_stay_where_they_are() -> None:
    connection = Connection()
    connection.keep(b"abc")
    head = connection.head()
    connection.keep(b"def")
    assert bytes(head) == b"abc"
    connection.sent(1)
    assert bytes(connection.head()) == b"bc"
    connection.sent(2)
    assert bytes(connection.head()) == b"def"


def test_what_is_queued_is_a_copy() -> None:
    connection, buffer = Connection(), bytearray(b"abc")
    connection.keep(memoryview(buffer))
    buffer[:] = b"xyz"
    buffer += b"resized"
    assert bytes(connection.head()) == b"abc"


def test_reading_pauses_above_the_high_water_mark_and_resumes_at_the_low_one() -> None:
    connection = Connection()
    connection.keep(bytes(HIGH_WATER - 1))
    assert connection.reading
    connection.keep(b"x")
    assert not connection.reading
    connection.sent(len(connection.head()) - LOW_WATER - 1)
    assert not connection.reading
    connection.sent(1)
    assert connection.reading


def test_after_the_end_of_input_the_queue_still_goes_out() -> None:
    connection = Connection()
    connection.keep(b"abc")
    connection.end_of_input()
    assert (connection.state, connection.reading) == (FINISHING, False)
    assert not connection.finished()
    connection.sent(len(connection.head()))
    assert connection.finished()
    assert not connection.reading


def test_the_end_of_input_with_nothing_queued_is_the_end() -> None:
    connection = Connection()
    connection.end_of_input()
    assert connection.finished()


def test_a_lost_connection_is_finished_whatever_is_queued() -> None:
    connection = Connection()
    connection.keep(b"abc")
    head = connection.head()
    connection.lost()
    connection.end_of_input()
    assert (connection.state, connection.reading) == (LOST, False)
    assert connection.finished()
    assert bytes(head) == b"abc"
