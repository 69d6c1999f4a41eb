"""Session models from events: what a user wants next, as a vector that items' vectors are compared with.

dataset    events and items' content vectors as arrays; reading and store read them from files and a data folder
settings   everything that decides what comes out
tower      items' vectors from content and id; gru and sasrec read histories; network puts one upon a tower
batches, losses, fitting, checkpoint   training; private: the same with differential privacy
judging    full ranking, of a network and of any session model; gate: whether a new one may replace the served one
folder, scan   what a server takes: ONNX files, checked against torch, and what is said of them
training   all of it: `matchcut train session`
movielens, words, blends, checking   the published row, and what goes beyond it: `... --check`
"""
