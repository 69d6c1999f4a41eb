"""Honest evaluation: splits, metrics with intervals, baselines, and reports that say how each number came about.

numpy only, and nothing of the server's but its errors and records: what trains and what is on the command line uses it.
"""
