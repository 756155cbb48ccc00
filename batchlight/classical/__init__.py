"""The classical method: invert, remove haze, invert back. Arrays only.

light.py        the atmospheric light of a batch
planes.py       rows of interleaved samples as planes
darkchannel.py  the dark channel and the haziest pixels, in one pass over the rows
omega.py        the omega that brings an image to a target
exact.py        the formula, pixel by pixel
cells.py        a clean estimate of a noisy image
denoise.py      the formula with noise reduced
dehaze.py       the method itself
"""
