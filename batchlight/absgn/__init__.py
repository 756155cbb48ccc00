"""ABSGN, the attention-based broadly self-guided network (Chen, Yu et al., arXiv 2112.06226).

network.py     the network
start.py       what images are before the network sees them: brightened, or enhanced by classical/
exposure.py    brightening them, so that it sees images of one mean
weights.py     weights as safetensors
loading.py     which network a run uses
inference.py   images in, enhanced images out, on one device
conversion.py  images to tensors and back
tiles.py       an image in tiles, with the result of the whole image
transfers.py   images to a GPU and back while it computes
result.py      what the network made of one image; needs no PyTorch
training.py    the steps of a training, on one device or several
recipe.py      what decides the weights; the schedule
losses.py      how far a result is from its truth
samples.py     what a step sees, made on the device of pairs and well-lit pictures
synthetic.py   dark pictures made of well-lit ones
models/        the weights that come with the package
"""

CPU_THREADS = 8
"""Of one network, however many CPUs there are: oneDNN sums in an order that depends on it, and with
the order changes the last bit. More threads than CPUs take no longer. Here, to be known without
PyTorch."""
