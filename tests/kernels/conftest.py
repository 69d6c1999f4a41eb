"""Puts Triton into its interpreter before a test here imports a kernel."""

from __future__ import annotations

import support.triton_interpreter  # noqa: F401
