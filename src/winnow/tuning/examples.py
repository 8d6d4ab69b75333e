"""The records of each epoch: the same ones in the same order, in a form that may differ from epoch to epoch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from winnow.data.templates import Encoded

# epoch, from 0 -> the encoded records of that epoch: the same record ids in the same order every time
ExamplesOf = Callable[[int], "Sequence[Encoded]"]


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
        self._fixed = not callable(examples)
        self._epoch, self._records = 0, self.first

    def __call__(self, epoch: int) -> list[Encoded]:
        if epoch != self._epoch and not self._fixed:
            given = self._of(epoch)
            records = [given[i] for i in self._positions] if len(given) == self.total else []
            if [record.id for record in records] != [record.id for record in self.first]:
                raise RuntimeError(f"the examples of epoch {epoch} are not the records of epoch 0 in the same order")
            if not all(map(trainable, records)):
                raise RuntimeError(f"a record of epoch {epoch} cannot be trained on, which in epoch 0 it could")
            self._epoch, self._records = epoch, records
        return self._records
