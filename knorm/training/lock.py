"""One job at a time in a run folder: a lock that the system drops when its process ends."""

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from knorm.training.folder import LOCK
from knorm.training.mistakes import InUseError

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


@contextmanager
def locked(folder: Path, name: str = LOCK) -> Iterator[None]:
    """Inside, no other process on any machine that sees the folder gets into this.

    `name` is the lock's file in the folder. Where the file system has no locks a note says so. The
    file stays when the lock is gone, for removing it would let a third process in beside a second;
    it names the last holder.

    Raises:
        InUseError: another process is inside; the message names it.
    """
    with os.fdopen(os.open(folder / name, os.O_RDWR | os.O_CREAT, 0o666), "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InUseError(
                f"{folder} is in use by {file.read().strip() or 'another job'}; "
                "wait for its end, or give another --run_dir"
            ) from error
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            print(
                f"note: {folder} lies where files cannot be locked ({error.strerror}): "
                "nothing keeps a second job from it",
                flush=True,
            )
        file.truncate()
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
