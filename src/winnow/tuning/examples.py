"""The records of each epoch: the same ones in the same order, in a form that may differ from epoch to epoch, and the
distortion of noised instructions that an adversary asks for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from winnow.errors import UserError

if TYPE_CHECKING:
    from winnow.data.records import Record
    from winnow.data.templates import Encoded, Template
    from winnow.perturb.noising.base import Noising

# epoch, from 0 -> the encoded records of that epoch: the same record ids in the same order every time
ExamplesOf = Callable[[int], "Sequence[Encoded]"]
Distortion = Callable[[Sequence[str], Sequence[str]], float]  # original and noised instructions -> beta


def supervised_tokens(example: Encoded) -> int:
    """Answer tokens that have a token before them to be predicted from."""
    return len(example.ids) - max(example.answer_start, 1)


def trainable(example: Encoded) -> bool:
    """True if there is something to learn from: no flag, and an answer token that can be predicted."""
    return example.flag is None and supervised_tokens(example) > 0


class NoisedExamples:
    """Records whose instructions are noised anew in every epoch, as `Tuner.fit` takes them.

    raw: the records as they are. noised: epoch -> the same records, noised where the noising says so. Whether a record
    is trained on is decided by its raw form, so that every epoch has the same records. Where noise leaves nothing to
    train on (the noised prompt fills the window), the record keeps its raw form for that epoch (ours).
    fallbacks: for each epoch made so far, how many records kept their raw form for that reason.
    """

    def __init__(self, raw: Sequence[Encoded], noised: ExamplesOf) -> None:
        self.raw, self.noised = raw, noised
        self.fallbacks: dict[int, int] = {}

    def __call__(self, epoch: int) -> list[Encoded]:
        pairs = list(zip(self.raw, self.noised(epoch), strict=True))
        self.fallbacks[epoch] = sum(trainable(raw) and not trainable(noisy) for raw, noisy in pairs)
        return [noisy if trainable(raw) and trainable(noisy) else raw for raw, noisy in pairs]


class EpochRecords:
    """The records that are trained on, for each epoch; the last epoch asked for is kept in memory.

    examples: encoded records for all epochs, or a function that gives those of one epoch. Epoch 0 says which records
    are trained on (`first`), ordered by id: the tuned model is a function of their set, not of their order in a file.
    `dropped` counts the others by reason, `total` counts all.
    Raises RuntimeError if a later epoch has other records, or one that cannot be trained on.
    """

    def __init__(self, examples: Sequence[Encoded] | ExamplesOf) -> None:
        self._of = examples if callable(examples) else lambda _epoch: examples
        given = self._of(0)
        self.total = len(given)
        self.dropped = dict(Counter(one.flag or "no_answer_token" for one in given if not trainable(one)))
        kept = [i for i, one in enumerate(given) if trainable(one)]
        self._positions = sorted(kept, key=lambda i: (given[i].id, given[i].ids))
        self.first = [given[i] for i in self._positions]
        self._epoch, self._records = 0, self.first

    def __call__(self, epoch: int) -> list[Encoded]:
        if epoch != self._epoch:
            given = self._of(epoch)
            records = [given[i] for i in self._positions] if len(given) == self.total else []
            if [record.id for record in records] != [record.id for record in self.first]:
                raise RuntimeError(f"the examples of epoch {epoch} are not the records of epoch 0 in the same order")
            if not all(map(trainable, records)):
                raise RuntimeError(f"a record of epoch {epoch} cannot be trained on, which in epoch 0 it could")
            self._epoch, self._records = epoch, records
        return self._records


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
