"""What runs on a worker: one batch after the other.

image.py           one image: what is known of it, and its failures
places.py          what a worker reads from and writes to
steps.py           what is done to one image: read, decode, enhance, encode, write, record
trial.py           one setting tried on images, without writing
overlap.py         reading ahead and writing behind, bounded in bytes
pipeline.py        one batch: analyse, wait for the mean where it matters, finish, commit
copying.py         one batch of files that are no images
shard.py           one container: its images in groups, written back to where they were
shard_steps.py     the steps of the images in a container
sidecars.py        files beside containers
kinds.py           what a batch is of, and who does it
ending.py          how a batch ends: committed, or told of again
batch_result.py    what the driver hears of it
closing.py         what is done at the end of a plan
assigned.py        all batches that a worker is given at once, and how far it is
network_client.py  images to the network and back, in groups of one shape
"""
