"""A model of clips in which the order of the frames matters: a CNN for each frame, and a GRU over them.

It reads: *read or draw the clips, fit a GRU and a mean of the same features, judge both, publish*. See run.py.
"""
