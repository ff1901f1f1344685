"""What a generator is measured by: Parzen log-likelihood, precision and recall, coverage, a classifier's features.

May import `networks` and `datasets`; the extensions and the pipeline import it. What enters are samples and real images
as rows of pixels; what leaves are numbers with their standard errors.
"""
