"""Perturbations of a record: of its embeddings, or of its words."""
