"""What there is to do: a listing compared with the records of earlier runs, cut into batches.

listing.py     what the input is, and its listing
columns.py     the columns of ``--image-column``, which have to exist
passed_over.py what a listing found besides its images
merging.py     a listing merged with the earlier records
collisions.py  images whose outputs would overwrite one another
comparison.py  a listing compared with earlier records
survey.py      one part of a listing, compared on a worker or in the driver
extrapolation.py  where to cut the rest of a listing
cutting.py     what there is to do, cut into batches and chunks
planner.py     comparing and cutting, with counts
"""
