"""The machine and the process that the code runs in.

resources.py  the CPUs, GPUs and memory that this process may use
cgroups.py    the limits that a container puts on its processes
process.py    settings of a process that works on images
identity.py   what distinguishes a process from all others
signals.py    how a run is asked to stop
abandoned.py  calls that can be abandoned but not ended
turns.py      a processor that several threads share
"""
