"""What runs in the driver: one command each.

run.py         one run, from the lock to the summary
emptiness.py   a listing without images
places.py      where a run reads and writes, and what it resumes of an earlier run
surveying.py   a long listing, looked at part by part on the workers
drafting.py    the plans of a listing, each written while the one before it is running
dispatch.py    sends a plan's batches to the workers, many at a time
batches.py     one batch, and the handling of one that kills its worker
following.py   counts results and reports progress
closing.py     the end of a plan: its parts move to metadata/
network.py     the network on its actors
outcome.py     the result of a run, in numbers
stats.py, progress.py, prometheus.py   what a run has done so far, and its display
dry_run.py     what a run would do
estimates.py, requests.py   how long it would take, how many requests, and what that would cost
census.py      what containers hold, according to their headers
sidecars.py    copying the files beside containers
preview.py     a few images with a few settings side by side
settings.py    the settings that a preview compares
report.py      the report, regenerated
verify.py, repair.py   outputs compared with their records; what differs is redone
gone.py        inputs that could be read when they were planned, and now cannot
"""
