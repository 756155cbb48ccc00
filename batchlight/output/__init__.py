"""All that lies in OUTPUT: who writes it, and how it is read back. No pixels, no Ray.

inputs.py       what an image of the data set is, and the listing of them
records.py      what a record is: the schema, and how rows are counted and sorted
recordfiles.py  the files of records: parts, and those of ``metadata/``
plan.py         plans that are stored before work starts
earlier.py      what earlier runs recorded
commit.py       a finished plan's rows move to ``metadata/`` and replace the old ones
lock.py         which run holds the output
summary.py      how a run ended
status.py       how far a run is, read from its output alone
"""
