"""The same job on several backends, side by side."""

from kseq.compare.compare import compare
from kseq.compare.report import print_comparison

__all__ = ["compare", "print_comparison"]
