"""References: measuring against them, training on them.

pairs.py     dark and well-lit images that belong together
pictures.py  what is trained on, in memory
quality.py   PSNR and SSIM
evaluate.py  how near two folders of images are
train.py     weights made from pairs
"""
