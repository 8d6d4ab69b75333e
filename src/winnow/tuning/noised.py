"""Where noised instructions meet the tuner: the examples of each epoch, and the distortion that an adversary asks
for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from winnow.errors import UserError
from winnow.tuning.examples import ExamplesOf, NoisedExamples

if TYPE_CHECKING:
    from winnow.data.records import Record
    from winnow.data.templates import Encoded, Template
    from winnow.perturb.noising.base import Noising

Distortion = Callable[[Sequence[str], Sequence[str]], float]


def examples_of(
    records: Sequence[Record], template: Template, tokenizer, noising: Noising | None
) -> Sequence[Encoded] | ExamplesOf:
    """Encoded records with EOS; with a noising, a function that gives those of an epoch."""

    def encoded(own: Sequence[Record]) -> list[Encoded]:
        return template.encode(own, tokenizer, eos=True)

    if noising is None:
        return encoded(records)
    return NoisedExamples(encoded(records), lambda epoch: encoded(noising.apply(records, epoch)))


def distortion_of(records: Sequence[Record], noising: Noising, measure: Distortion) -> Callable[[int], float]:
    """Epoch -> beta, the distortion of the instructions as that epoch noises them (ANIT, Algorithm 1, line 4).

    The function raises UserError if no instruction can be noised.
    """

    def beta(epoch: int) -> float:
        raw, noisy = noising.pairs(records, epoch)
        if not raw:
            raise UserError(
                f"noising={noising.name} can change none of the {len(records)} selected instructions, so there is no "
                f"distortion; choose another noising, or give adversary.distortion a number."
            )
        return measure(raw, noisy)

    return beta
