import errno
import os
import subprocess
import sys

import pytest

from knorm.training import lock
from knorm.training.mistakes import InUseError

HOLDER = """
import sys, time
from pathlib import Path
from knorm.training.lock import locked

with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_and_a_killed_one_leaves_no_lock(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
            words = f"{tmp_path} is in use by process {holder.pid} on "
            with pytest.raises(InUseError, match=words), lock.locked(tmp_path):
                pytest.fail("two processes are inside")
        finally:
            holder.kill()
            holder.wait()
    with lock.locked(tmp_path):
        assert f"process {os.getpid()} on " in (tmp_path / ".lock").read_text()


def test_the_lock_is_dropped_at_the_end_and_after_a_failure(tmp_path):
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), lock.locked(tmp_path):
            raise ZeroDivisionError
    with lock.locked(tmp_path), pytest.raises(InUseError, match="in use by process"):
        lock.locked(tmp_path).__enter__()


@pytest.mark.parametrize(("number", "goes_on"), [(errno.ENOLCK, True), (errno.EIO, False)])
def test_a_file_system_without_locks_is_noted(tmp_path, monkeypatch, capsys, number, goes_on):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    if not goes_on:
        with pytest.raises(OSError, match="error"), lock.locked(tmp_path):
            pytest.fail("went on")
        return
    with lock.locked(tmp_path):
        note = capsys.readouterr().out
    assert note.startswith(f"note: {tmp_path} lies where files cannot be locked (No locks avail")
    assert note.count("\n") == 1


def test_locks_of_other_names_do_not_meet(tmp_path):
    with lock.locked(tmp_path), lock.locked(tmp_path, ".other.lock"):
        again = lock.locked(tmp_path, ".other.lock")
        with pytest.raises(InUseError):
            again.__enter__()
