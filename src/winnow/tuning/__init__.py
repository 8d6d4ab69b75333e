"""Instruction tuning: LoRA or full, resumable, with or without an adversary on the input embeddings."""
