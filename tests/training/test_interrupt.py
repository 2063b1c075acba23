import os
import signal
import threading

import pytest

from knorm.training.interrupt import Interrupted, Stop, stop_on_signal


def test_a_signal_waits_until_stopping_is_safe():
    done = []

    def work():
        with stop_on_signal(leader=True) as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            done.append("the step")
            stop.check()
            done.append("never")

    with pytest.raises(Interrupted) as caught:
        work()
    assert done == ["the step"]
    assert caught.value.exit_code == 143


def test_a_second_signal_seconds_later_takes_effect_at_once():
    stop = Stop()
    stop(signal.SIGINT, None)
    stop(signal.SIGINT, None)  # the launcher's copy of the same request
    stop.since -= 60
    with pytest.raises(Interrupted) as caught:
        stop(signal.SIGINT, None)
    assert not caught.value.whole


def test_processes_that_do_not_save_go_on_until_the_leader_has_left():
    def work():
        with stop_on_signal(leader=False) as stop:
            os.kill(os.getpid(), signal.SIGINT)
            stop.check()
            raise RuntimeError("connection closed by peer")

    with pytest.raises(Interrupted):
        work()


def test_errors_without_a_signal_stay_what_they_are():
    with pytest.raises(RuntimeError, match="shape"), stop_on_signal(leader=False):
        raise RuntimeError("shape")


def test_the_old_handlers_come_back():
    before = signal.getsignal(signal.SIGINT)
    with stop_on_signal(leader=True):
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


def test_outside_the_main_thread_nothing_is_installed():
    stops = []

    def work():
        with stop_on_signal(leader=True) as stop:
            stops.append(stop)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert stops[0].number is None
