"""Experiments: their jobs and scales, the papers' numbers beside ours, figures, and a page that compares runs."""
