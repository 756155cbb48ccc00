"""What runs on a worker: one batch.

steps.py           what is done to one image: read, decode, enhance, encode, write, record
pipeline.py        one batch: analyse, wait for the mean where it matters, finish, commit
network_client.py  images to the network and back, in groups of one shape
"""
