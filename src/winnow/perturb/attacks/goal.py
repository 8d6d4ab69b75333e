"""What TextAttack's searches are told about a text: how large the answer's loss has become.

Imported after `resources.import_textattack` only: it builds on TextAttack's classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from textattack.goal_function_results import GoalFunctionResult
from textattack.goal_functions import GoalFunction
from textattack.models.wrappers import ModelWrapper
from textattack.shared import validators


class LossResult(GoalFunctionResult):
    """A text and its score; the colours are TextAttack's for its own printing, which is not used."""

    def get_text_color_input(self) -> str:
        return "red"

    def get_text_color_perturbed(self) -> str:
        return "blue"

    def get_colored_output(self, color_method=None) -> str:
        return str(self.output)


def without_model(goal: type[GoalFunction]) -> type[GoalFunction]:
    """Tell TextAttack that the goal works with a wrapper that holds no model, or it would warn of it each time."""
    validators.MODELS_BY_GOAL_FUNCTION[goal] = [r"^builtins\.NoneType$"]
    return goal


class _LossModel(ModelWrapper):
    """Hands all texts of a question over at once; batches are made where the backbone is."""

    model = None

    def __init__(self) -> None:
        self.losses: Callable[[Sequence[str]], Sequence[float]] | None = None

    def __call__(self, text_input_list, **kwargs) -> list[float]:
        return list(self.losses(text_input_list))


@without_model
class AnswerLossGoal(GoalFunction):
    """Raise s(A|Q_adv), the mean loss of the answer in nats per token, as far as the query budget goes.

    There is no point at which the goal is reached: the search goes on until its words or its queries are used up.
    A text for which there is no loss (its prompt leaves no room for the answer) is worse than any other.
    """

    def __init__(self, query_budget: int) -> None:
        super().__init__(
            _LossModel(), maximizable=True, use_cache=True, query_budget=query_budget, model_batch_size=query_budget
        )

    def ask(self, losses: Callable[[Sequence[str]], Sequence[float]]) -> None:
        """Whom to ask from now on: the losses of one record's answer under each of several instructions."""
        self.model.losses = losses

    def _is_goal_complete(self, model_output, attacked_text) -> bool:
        return False

    def _get_score(self, model_output, attacked_text) -> float:
        return -math.inf if math.isnan(model_output) else float(model_output)

    def _goal_function_result_type(self):
        return LossResult

    def _process_model_outputs(self, inputs, outputs):
        return outputs
