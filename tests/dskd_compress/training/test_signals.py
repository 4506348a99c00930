from __future__ import annotations

import os
import signal
import threading

import pytest

from dskd_compress.training.signals import StopRequest

BOTH = (signal.SIGINT, signal.SIGTERM)


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in BOTH]


@pytest.mark.parametrize("number", BOTH)
def test_the_first_signal_is_a_request(number: signal.Signals) -> None:
    before = handlers()
    with StopRequest() as stop:
        assert stop.requested is None
        os.kill(os.getpid(), number)
        assert stop.requested == number.name
    assert handlers() == before


def test_a_second_ctrl_c_ends_at_once() -> None:
    before = handlers()
    stop = StopRequest()

    def work() -> None:
        with stop:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert stop.requested == "SIGTERM"
    assert handlers() == before


def test_a_second_sigterm_stays_a_request() -> None:
    """A scheduler may send it every few seconds; the state is being saved meanwhile."""
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
    assert stop.requested == "SIGTERM"


def test_handlers_of_the_caller_come_back_after_an_error() -> None:
    caught: list[int] = []

    def fail() -> None:
        with StopRequest():
            os.kill(os.getpid(), signal.SIGTERM)
            raise RuntimeError

    outside = signal.signal(signal.SIGTERM, lambda number, frame: caught.append(number))
    try:
        with pytest.raises(RuntimeError):
            fail()
        assert caught == []
        os.kill(os.getpid(), signal.SIGTERM)
        assert caught == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, outside)


def test_elsewhere_than_in_the_main_thread_it_catches_nothing() -> None:
    before, seen = handlers(), []

    def work() -> None:
        with StopRequest() as stop:
            seen.extend([handlers(), stop.requested])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before, None]
