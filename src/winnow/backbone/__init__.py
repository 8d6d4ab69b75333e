"""Backbones: loading them, and the tensor functions that read likelihoods and vectors from them."""
