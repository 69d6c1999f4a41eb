"""The ops' Triton sources and launch specs; imported only to compile them and to test them, never to serve."""
