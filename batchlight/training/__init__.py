"""References: measuring against them, training on them.

config.py    the options of a training run
pairs.py     pairs of a dark and a well-lit image
pictures.py  the training pictures, in memory
quality.py   PSNR and SSIM of one image
evaluate.py  how close two folders of images are
survey.py    measurements of enhanced images without references
folders.py   folders of images, and the pairing of their images
train.py     weights made from pairs
"""
