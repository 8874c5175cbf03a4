"""Kernels: one operation per file, a PyTorch reference and its fast variants; knows tensors only."""
