"""Encoders on disk: what describes one, and the one that is built where none is given."""

from matchcut.server.models.default import VERSIONS, Bits, bits, default_encoder
from matchcut.server.models.encoder import Encoder, load

__all__ = ["VERSIONS", "Bits", "Encoder", "bits", "default_encoder", "load"]
