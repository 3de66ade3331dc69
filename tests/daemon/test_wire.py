from __future__ import annotations

import socket

import pytest
from denoised.daemon.wire import Wire, WireClosed


@pytest.fixture
def ends():
    a, b = socket.socketpair()
    return Wire(a), Wire(b)


def test_messages_arrive_whole_and_in_order(ends):
    for n in range(100):
        ends[0].send({"n": n, "text": "x" * n})
    assert [m["n"] for m in ends[1].receive()] == list(range(100))


def test_a_message_larger_than_the_socket_takes_does_not_block(ends):
    ends[0].send({"data": "y" * 5_000_000})
    assert ends[0].unsent
    got: list[dict] = []
    while not got:
        ends[0].flush()
        got = ends[1].receive()
    assert len(got[0]["data"]) == 5_000_000
    assert not ends[0].unsent


def test_the_last_words_of_the_other_side_are_read_before_it_is_said_to_be_gone(ends):
    ends[0].send({"last": True})
    ends[0].close()
    assert ends[1].receive() == [{"last": True}]
    with pytest.raises(WireClosed):
        ends[1].receive()


def test_sending_to_a_side_that_is_gone_says_so(ends):
    ends[1].close()
    with pytest.raises(WireClosed):
        ends[0].send({"data": "z" * 1_000_000})
