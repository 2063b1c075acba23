"""Loops on as many threads as torch has: on torch's own, where its OpenMP lets us.

Threads of OpenMP go on spinning for a while after a convolution, so that others, beside them, would
wait for a core. GNU's runtime and, on Linux, LLVM's and Intel's run what they are given by
`GOMP_parallel`; where there is none, and in a forked process, which must not use its parent's,
threads of our own do the work.
"""

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import torch

LEAST = 2**14  # elements for which another thread is worth its call
OWNER = os.getpid()
BODY = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def share_out(loop: Callable[..., Any], count: int, size: int, *args: Any) -> None:
    """loop(start, stop, *args) for all of `count`, in as many parts as there are threads for.

    size: elements that are worked on.
    """
    threads = max(min(torch.get_num_threads(), count, size // LEAST), 1)
    if threads == 1:
        loop(0, count, *args)
        return
    ends = [count * i // threads for i in range(threads + 1)]
    left, errors = list(range(threads)), []

    def work(_: Any = None) -> None:
        """Whatever is left: there may be fewer threads than parts."""
        while True:
            try:
                part = left.pop()
            except IndexError:
                return
            try:
                loop(ends[part], ends[part + 1], *args)
            except BaseException as error:  # nothing may be raised into OpenMP
                errors.append(error)

    parallel = openmp() if os.getpid() == OWNER else None
    if parallel is not None:
        parallel(BODY(work), None, threads, 0)
    else:
        others = [helpers(torch.get_num_threads() - 1).submit(work) for _ in range(threads - 1)]
        work()
        for other in others:
            other.result()
    if errors:
        raise errors[0]


@lru_cache(1)
def openmp() -> Callable[..., None] | None:
    """GOMP_parallel(function, argument, threads, flags) of the runtime that torch has loaded."""
    if os.name != "posix":
        return None
    parallel = getattr(ctypes.CDLL(None), "GOMP_parallel", None)
    if parallel is not None:
        parallel.argtypes = [BODY, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        parallel.restype = None
    return parallel


@lru_cache(1)
def helpers(count: int) -> ThreadPoolExecutor:
    """Threads of our own."""
    return ThreadPoolExecutor(count, thread_name_prefix="knorm")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=helpers.cache_clear)  # threads do not survive a fork
