"""What TextAttack's searches are told about a text: how large the answer's loss has become.

Imported after `resources.import_textattack` only: it builds on TextAttack's classes.
"""

from __future__ import annotations

import math
from types import SimpleNamespace

from textattack.goal_functions.text import TextToTextGoalFunction
from textattack.shared import validators

from winnow.perturb.attacks.base import Losses


class AnswerLossGoal(TextToTextGoalFunction):
    """Raise s(A|Q_adv), the mean loss of the answer in nats per token, as far as the query budget goes.

    There is no point at which the goal is reached: the search goes on until its words or its queries are used up.
    A text for which there is no loss (its prompt leaves no room for the answer) is worse than any other.
    """

    def __init__(self, query_budget: int) -> None:
        # All texts of a question are handed over at once; batches are made where the backbone is.
        super().__init__(
            SimpleNamespace(model=None), maximizable=True, query_budget=query_budget, model_batch_size=query_budget
        )

    def ask(self, losses: Losses) -> None:
        """Whom to ask from now on: the losses of one record's answer under each of several instructions."""
        self.model = lambda texts: list(losses(texts))

    def _is_goal_complete(self, model_output, attacked_text) -> bool:
        return False

    def _get_score(self, model_output, attacked_text) -> float:
        return -math.inf if math.isnan(model_output) else float(model_output)


# TextAttack would warn, each time, of a goal that it does not know.
validators.MODELS_BY_GOAL_FUNCTION[AnswerLossGoal] = [r"^builtins\.NoneType$"]
