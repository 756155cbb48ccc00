"""What runs in the driver: one command each.

run.py         one run, from the lock to the summary
emptiness.py   a listing without images
places.py      where a run reads and writes, and what of an earlier one it goes on with
surveying.py   a long listing, looked at part by part on the workers
drafting.py    the plans of a listing, each written while the one before it is done
dispatch.py    a plan's batches to the workers, many at a time
batches.py     one batch, and what becomes of one that kills its worker
following.py   what is heard of them: counts, and who is told
closing.py     the end of a plan: its parts move to metadata/
network.py     the network on its actors
outcome.py     what a run comes to, in numbers
stats.py, progress.py, prometheus.py   what a run has done so far, and who is told
dry_run.py     what a run would do
estimates.py, requests.py   how long it would take, how many requests, and what that would cost
census.py      what is in containers, told from their headers
sidecars.py    files beside containers, which go along
preview.py     a few images with a few settings side by side
settings.py    the settings that a preview compares
report.py      the report, made again
verify.py, comparing.py, repair.py   outputs compared with their records; what differs is redone
"""
