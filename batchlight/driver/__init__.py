"""What runs in the driver: one command each.

run.py         one run, from the lock to the summary
listing.py     what the input is, and its listing
emptiness.py   a listing without images
places.py      where a run reads and writes, and what of an earlier one it goes on with
planner.py     a listing compared with earlier records, cut into batches
collisions.py  images whose outputs would overwrite one another
batches.py     a batch on a worker, and what becomes of one that kills its worker
network.py     the network on its actors
stats.py, progress.py, prometheus.py   what a run has done so far, and who is told
dry_run.py     what a run would do
estimates.py, requests.py   how long it would take, how many requests, and what that would cost
census.py      what is in containers, told from their headers
sidecars.py    files beside containers, which go along
preview.py     a few images with a few settings side by side
settings.py    the settings that a preview compares
report.py      the report, made again
verify.py, repair.py   outputs compared with their records; what differs is redone
"""
