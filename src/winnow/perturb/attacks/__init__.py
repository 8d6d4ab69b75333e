"""Prompt attacks: the instruction of a record, rewritten so that a model may stumble over it."""
