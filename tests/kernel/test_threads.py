"""Work that is shared out: all of it is done once, on whatever threads there are."""

import os
import subprocess
import sys
import threading
import time

import pytest
import torch

from knorm.kernel import threads


@pytest.fixture(params=["of torch", "our own"], autouse=True)
def three_threads(request, monkeypatch):
    if request.param == "our own":
        monkeypatch.setattr(threads, "openmp", lambda: None)
    elif threads.openmp() is None:
        pytest.skip("torch's OpenMP has no GOMP_parallel here")
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 100])
def test_all_is_done_once(count):
    done = []
    threads.share_out(lambda start, stop: done.extend(range(start, stop)), count, 10**9)
    assert sorted(done) == list(range(count))


def test_several_threads_do_it():
    names = set()

    def loop(start, stop):
        names.add(threading.get_ident())
        time.sleep(0.2)

    threads.share_out(loop, 3, 10**9)
    assert len(names) == 3
    names.clear()
    threads.share_out(loop, 3, 10)
    assert len(names) == 1


@pytest.mark.parametrize("error", [ZeroDivisionError, IndexError])
def test_an_error_comes_out(error):
    def loop(start, stop):
        raise error(start)

    with pytest.raises(error):
        threads.share_out(loop, 3, 10**9)


def test_a_forked_process_has_threads_of_its_own():
    program = """
import os, torch
from knorm.kernel.threads import share_out
torch.set_num_threads(3)
def loop(start, stop, found): found.extend(range(start, stop))
def work():
    found = []
    share_out(loop, 9, 10**9, found)
    return sorted(found) == list(range(9))
assert work()
child = os.fork()
if child == 0: os._exit(0 if work() else 1)
assert os.waitpid(child, 0)[1] == 0
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=os.environ, timeout=60
    )
    assert done.returncode == 0, done.stderr
