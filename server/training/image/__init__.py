"""Classifiers of pictures: cleaned data, a small network or the default encoder fine-tuned, exported for the server."""
