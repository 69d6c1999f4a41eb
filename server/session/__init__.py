"""Session models: what a user wants next, from what the user did.

contract.py says what one is. decaying.py needs no training; onnx.py runs a trained one, which folder.py finds, deploys
and takes back.
"""

from matchcut.server.session.contract import SessionModel
from matchcut.server.session.decaying import HALF_LIFE, DecayingMean
from matchcut.server.session.folder import SessionFolder, current, deploy, rollback, versions
from matchcut.server.session.onnx import OnnxSession

__all__ = [
    "HALF_LIFE",
    "DecayingMean",
    "OnnxSession",
    "SessionFolder",
    "SessionModel",
    "current",
    "deploy",
    "rollback",
    "versions",
]
