"""Running calls in other processes, and handling their deaths: the only package that knows Ray.

An engine knows nothing about images. It runs functions on workers, one CPU each, and hosts objects
that need a process or a GPU of their own; it distinguishes the death of a process from a failure of
the work.

base.py      the engine protocol, and the engine that is this process
calls.py     retries, bisection and the window, for any engine
exclusive.py locks that many may hold at once, or one alone
tasks.py     the engine on Ray: a cluster or a Ray of its own
choice.py    which engine a job gets
task_call.py       one call as a Ray task, and the search for one that Ray has lost
actors.py          objects as Ray actors, from the caller's side
actor_process.py   such an actor, from the inside
deaths.py    classifies a failed call: an exception, a death it caused, or bad luck
marks.py     the file that records the state of a call
timeout.py   the time limit of a call
address.py   which Ray --address means, and whether it can be reached
own_ray.py   what a Ray of our own needs, and what keeps others out of it
head.py      whether the head of the cluster still answers
training.py  training in several processes
"""

from __future__ import annotations

from batchlight.engine.address import ray_address, require_ray
from batchlight.engine.base import Engine, InProcessEngine, Lost, Meter, Service, Work, WorkerDied
from batchlight.engine.calls import (
    Resends,
    Trials,
    Tries,
    call_patiently,
    call_until_done,
    window,
)
from batchlight.engine.choice import make_engine
from batchlight.engine.exclusive import AsyncSharedOrExclusive
from batchlight.engine.tasks import RayEngine
from batchlight.engine.training import train_together

__all__ = [
    "AsyncSharedOrExclusive",
    "Engine",
    "InProcessEngine",
    "Lost",
    "Meter",
    "RayEngine",
    "Resends",
    "Service",
    "Trials",
    "Tries",
    "Work",
    "WorkerDied",
    "call_patiently",
    "call_until_done",
    "make_engine",
    "ray_address",
    "require_ray",
    "train_together",
    "window",
]
