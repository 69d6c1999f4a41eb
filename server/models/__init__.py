"""Encoders on disk: what describes one, and the one that is built where none is given."""

from matchcut.server.models.default import default_encoder
from matchcut.server.models.encoder import Encoder, load

__all__ = ["Encoder", "default_encoder", "load"]
