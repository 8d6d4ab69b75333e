"""Winnow: which instruction data a language model should be tuned on, and tuning it robustly."""

__version__ = "0.1.0"
