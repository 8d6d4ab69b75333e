"""Passes: one sweep of a model over the records, giving columns per record. One file each."""
