"""The matchcut server: video in, ranked items out. Read pipeline.py first."""
