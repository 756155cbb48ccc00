"""ABSGN, the attention-based broadly self-guided network (Chen, Yu et al., arXiv 2112.06226).

network.py     the network
start.py       preprocessing of images: exposed, or enhanced by classical/
exposure.py    brightening images to one mean before the network
weights.py     weights as safetensors
loading.py     which network a run uses
inference.py   images in, enhanced images out, on one device
conversion.py  images to tensors and back
tiles.py       an image in tiles, with the result of the whole image
transfers.py   images to a GPU and back while it computes
result.py      the network's result for one image; needs no PyTorch
training.py    the steps of training, on one device or several
recipe.py      what determines the weights; the schedule
losses.py      how far a result is from its ground truth
samples.py     the samples of a step, made on the device from pairs and well-lit pictures
synthetic.py   dark pictures synthesized from well-lit ones
models/        the weights that come with the package
"""

CPU_THREADS = 8
"""Per network, however many CPUs there are: oneDNN's order of summation depends on it, and with the
order the last bit. More threads than CPUs take no longer. Defined here, so as to be available
without PyTorch."""


def networks_on(cpus: int, nodes: int = 1) -> int:
    """How many networks work at once on CPUs; at least one per node."""
    return max(nodes, cpus // CPU_THREADS)
