"""ABSGN, the attention-based broadly self-guided network (Chen, Yu et al., arXiv 2112.06226)."""

CPU_THREADS = 8
"""Of one network, however many CPUs there are: oneDNN sums in an order that depends on it, and with
the order changes the last bit. More threads than CPUs take no longer. Here, to be known without
PyTorch."""
