"""What runs on a worker: one batch after another.

image.py           one image: what is known of it, and its failures
places.py          the storages that a worker reads from and writes to
context.py         what all batches of a run share
steps.py           the steps of one image: read, decode, enhance, encode, write, record
trial.py           one setting tried on images, without writing
overlap.py         reading ahead and writing behind, bounded in bytes
pipeline.py        one batch: analyse, wait for the mean where it matters, finish, commit
copying.py         one batch of files that are not images
shard.py           one container: its images in groups, written back in place
shard_steps.py     the steps of the images in a container
sidecars.py        files beside containers
handlers.py        the kinds of batches, and what runs each of them
ending.py          how a batch ends: committed, or returned as redone rows
batch_result.py    what the driver is told about a batch
closing.py         work at the end of a plan
comparing.py       outputs compared with their records
assigned.py        all batches that a worker is given at once, and their progress
network_client.py  images to the network and back, in groups of one shape
"""
