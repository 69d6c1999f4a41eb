"""Compiles the Triton kernels ahead of time, on any Linux machine, with neither a GPU nor torch.

`python -m matchcut.kernels.compile` writes the folder kernels/cubins: a file for each kernel and GPU, and a manifest
that says how each is launched. What serves reads that folder and never imports Triton; nothing imports this package.
"""
