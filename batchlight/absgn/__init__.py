"""ABSGN, the attention-based broadly self-guided network (Chen, Yu et al., arXiv 2112.06226)."""
