"""Evaluation through lm-evaluation-harness: suites of stock tasks, a local mirror of their data, an embedded suite."""

from winnow.evaluation.harness import compare, evaluate_model
from winnow.evaluation.suite import Suite, TaskSpec

__all__ = ["Suite", "TaskSpec", "compare", "evaluate_model"]
