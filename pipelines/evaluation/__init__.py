"""Scores of samples, whoever drew them: Parzen log-likelihoods of arrays, and Inception's FID, KID and score.

May import `storage`, `config` and `gan_core`. What enters are samples and points; what leaves are scores as plain data.
"""
