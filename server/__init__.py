"""The matchcut server: video in, ranked items out. Read pipeline.py first."""

import os
import sys

# A server tells nobody that it runs. Two of the libraries that it uses would tell their makers as soon as they are
# imported: ONNX Runtime keeps events and an id of the machine in the user's folders, OpenVINO asks Google Analytics.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # an import of it fails; OpenVINO minds not
