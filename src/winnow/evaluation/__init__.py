"""Evaluation through lm-evaluation-harness: suites of stock tasks, a local mirror of their data, an embedded suite."""
