"""Passes over the backbone, the store that keeps their columns, and the methods that turn columns into scores."""
