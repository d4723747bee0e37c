"""Threads that libraries start by themselves: BLAS and OpenMP, a pool as large as the machine.

On cores that others use as well, those threads wait for each other at every step: a fit of 50 ms
took 700 ms of CPU. Libraries that take a number of threads are told so where they are called.
Here: finding the pools of those that do not.
"""

from __future__ import annotations

from typing import Any


def thread_pools() -> Any:
    """The pools of the libraries loaded by now; `with thread_pools().limit(limits=1):`.

    Looking for them takes milliseconds.
    """
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
