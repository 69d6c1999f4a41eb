"""An open-loop load generator for gRPC servers: matchcut's own calls, and any server of the open inference protocol.

A schedule says beforehand when each request is to be sent, and latency counts from that planned time, so that a server
that stalls cannot slow the measuring down with it (coordinated omission). `matchcut bench load` is its command line.
"""
