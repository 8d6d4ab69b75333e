"""The records of each epoch: the same ones in the same order, in a form that may differ from epoch to epoch, and the
distortion of noised instructions that an adversary asks for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from winnow.errors import UserError

if TYPE_CHECKING:
    from winnow.data.records import Record
    from winnow.data.templates import Encoded
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


class EpochRecords:
    """The records that are trained on, for each epoch; the last epoch asked for is kept in memory.

    raw: encoded with EOS. They say which records are trained on, the same in all epochs, ordered by id: the tuned model
    is a function of their set, not of their order in a file. `dropped` counts the others by reason, `total` counts all.
    noised: epoch, from 0 -> the same records in the same order, as that epoch has them; None where they stay raw. Where
    noise leaves nothing to train on (the noised prompt fills the window), the record keeps its raw form for that epoch
    (ours); `fallbacks` counts these by epoch. noising: what `noised` depends on, JSON-able. distortion: epoch -> beta,
    see `InstructionTuner`. `first`: the records of epoch 0. Raises RuntimeError for an epoch with other records.
    """

    def __init__(
        self,
        raw: Sequence[Encoded],
        noised: ExamplesOf | None = None,
        noising: dict[str, Any] | None = None,
        distortion: Callable[[int], float] | None = None,
    ) -> None:
        self._noised, self.noising, self.distortion = noised, noising, distortion
        self.total, self._ids = len(raw), [one.id for one in raw]
        self.fallbacks: dict[int, int] = {}
        self.dropped = dict(Counter(one.flag or "no_answer_token" for one in raw if not trainable(one)))
        kept = [i for i, one in enumerate(raw) if trainable(one)]
        self._positions = sorted(kept, key=lambda i: (raw[i].id, raw[i].ids))
        self._raw, self._epoch = [raw[i] for i in self._positions], -1
        self.first = self(0)

    def __call__(self, epoch: int) -> list[Encoded]:
        if self._noised is None:
            return self._raw
        if epoch != self._epoch:
            noised = self._noised(epoch)
            if [one.id for one in noised] != self._ids:
                raise RuntimeError(f"the records of epoch {epoch} are not those that are tuned on, in their order")
            pairs = [(raw, noised[i]) for raw, i in zip(self._raw, self._positions, strict=True)]
            self.fallbacks[epoch] = sum(not trainable(noisy) for _, noisy in pairs)
            self._epoch, self._records = epoch, [noisy if trainable(noisy) else raw for raw, noisy in pairs]
        return self._records


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
