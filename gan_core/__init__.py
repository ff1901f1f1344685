"""Generative adversarial nets (Goodfellow et al. 2014, arXiv 1406.2661) in PyTorch."""
