"""Data sets for the stages: read on the driver, or decoded once by Ray Data where they need not fit in memory.

May import `runtime`, `storage`, `config` and `gan_core`. What enters are `data` settings; what leaves is a `Dataset`.
"""
