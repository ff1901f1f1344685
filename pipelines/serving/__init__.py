"""A registered model over HTTP, on Ray Serve.

May import `reporting`, `registry` and what is below them. What enters are requests for samples; what leaves are images or numbers.
"""
