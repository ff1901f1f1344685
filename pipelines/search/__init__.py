"""What a search is made of: trials, schedulers, the searcher, their results; `stages.tune` runs it.

May import `registry` and what is below it, and imports `runtime`, `storage` and `config` alone. What enters are
candidates and a data set; what leaves is a table of scores, by candidate, seed and rung.
"""
