"""Section 7, future work: what is done beyond Algorithm 1, each a module: inference, imputation, semi-supervised."""
