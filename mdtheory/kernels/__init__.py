"""The block of Conv4 as one operation with hand-derived first and second derivatives, for CPUs with
a C++ compiler.
"""

from __future__ import annotations

from mdtheory.kernels.conv_norm_pool import plain, suits

__all__ = ["plain", "suits"]
