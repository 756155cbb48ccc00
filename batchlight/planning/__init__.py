"""What there is to do: a listing compared with the records of earlier runs, cut into batches.

listing.py     what the input is, and its listing
passed_over.py what a listing met beside its images
merging.py     a listing and earlier records side by side
collisions.py  images whose outputs would overwrite one another
comparison.py  a listing compared with earlier records
survey.py      one part of a listing, looked at wherever that is
extrapolation.py  where to cut what is left of a listing
cutting.py     what there is to do, cut into batches and chunks
planner.py     both, with counts
"""
