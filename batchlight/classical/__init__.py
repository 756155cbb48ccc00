"""The classical method: invert, remove haze, invert back. Arrays only.

light.py        the atmospheric light of a batch
darkchannel.py  the dark channel and the haziest pixels, in one pass over the rows
denoise.py      smoothing that follows the local gain
dehaze.py       the method itself
"""
