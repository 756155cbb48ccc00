"""Running calls somewhere else, and what to do when they die: the one place that knows Ray.

An engine knows nothing of images. It runs functions on workers, one CPU each, and hosts objects
that need a process or a GPU of their own; it tells the death of a process from a failure of the
work.

base.py      what an engine is, and the one that is this process
calls.py     retries, bisection, the window: for any engine
tasks.py     the engine on Ray: a cluster or a Ray of its own
task_call.py       one call as a Ray task, and the search for one that Ray has lost
actors.py          objects as Ray actors, as whoever calls them sees them
actor_process.py   such an actor, inside
deaths.py    what a failed call was: an exception, a death to blame it for, or bad luck
marks.py     the file that tells what became of a call
timeout.py   the time that a call may take
own_ray.py   what a Ray of our own needs, and what keeps others out of it
head.py      whether the head of the cluster still answers
training.py  training in several processes
"""

from __future__ import annotations

from batchlight.engine.base import Engine, InProcessEngine, Lost, Meter, Work, WorkerDied
from batchlight.engine.calls import (
    Floor,
    Resends,
    Trials,
    Tries,
    call_patiently,
    call_until_done,
    window,
)
from batchlight.engine.tasks import RayEngine, make_engine, ray_address
from batchlight.engine.training import train_together

__all__ = [
    "Engine",
    "Floor",
    "InProcessEngine",
    "Lost",
    "Meter",
    "RayEngine",
    "Resends",
    "Trials",
    "Tries",
    "Work",
    "WorkerDied",
    "call_patiently",
    "call_until_done",
    "make_engine",
    "ray_address",
    "train_together",
    "window",
]
