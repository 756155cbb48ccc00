"""Everything stored in OUTPUT: writing it and reading it back. No pixels, no Ray.

layout.py       every path, and the version of the format
documents.py    the JSON files: read leniently, written in full
inputs.py       an image of the data set, and a batch of them
records.py      the schema of records; how rows are counted and sorted
recordfiles.py  the Parquet files of records
numbers.py      sets of batch numbers
plan.py         what there is to do, stored before work starts
chunks.py       the rows of a plan
state.py        what an output holds at one moment
moving.py       reading its records while a run may be moving them
commit.py       the steps that change it
replaced.py     old rows that a plan replaces
earlier.py      what earlier runs recorded, for a new plan
lock.py         which run holds the output
withdrawing.py  undoing a beginning, for a run that was refused
fence.py        a storage that rejects changes once the lock is lost
summary.py      how a run ended
status.py       how far a run is
"""
