"""Adversaries: what is done to the input embeddings while a model is tuned. One file and one YAML each."""
