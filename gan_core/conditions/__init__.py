"""What G and D are conditioned on: nothing (the paper's own nets), classes, or the observed pixels of an image.

May import `networks` and `datasets`; training, the portable generator and the extensions import it. What enters are a
data set and the extension's settings; what leaves are conditions: rows of numbers, of width 0 for none, and G within
what its condition makes of its output.
"""
