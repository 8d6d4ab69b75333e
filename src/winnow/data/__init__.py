"""Instruction data: records, their readers and writers, and the templates that turn them into tokens."""
