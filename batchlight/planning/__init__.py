"""What there is to do: a listing compared with the records of earlier runs, cut into batches.

listing.py     what the input is, and its listing
passed_over.py what a listing met beside its images
merging.py     a listing and earlier records side by side
collisions.py  images whose outputs would overwrite one another
planner.py     a listing compared with earlier records
cutting.py     what there is to do, cut into batches and chunks
"""
