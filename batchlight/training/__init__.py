"""References: measuring against them, training on them.

config.py    the options of a training
pairs.py     dark and well-lit images that belong together
pictures.py  what is trained on, in memory
quality.py   PSNR and SSIM of one image
evaluate.py  how near two folders of images are
survey.py    what can be told of enhanced images without references
folders.py   folders of images, and which of their images belong together
train.py     weights made from pairs
"""
