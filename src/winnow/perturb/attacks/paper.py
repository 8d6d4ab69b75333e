"""The set of the attacks' papers: TextAttack's own resources, which it fetches when they are first asked for.

Imported through `resources.load` only: it builds on TextAttack's classes. Whatever cannot be had is one UserError.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import nltk
from textattack.constraints.grammaticality import PartOfSpeech
from textattack.constraints.semantics.sentence_encoders import UniversalSentenceEncoder
from textattack.shared import WordEmbedding
from textattack.transformations import WordSwapMaskedLM
from transformers import AutoModelForMaskedLM, AutoTokenizer

from winnow.errors import UserError

TAGGER = ("taggers/averaged_perceptron_tagger_eng", "taggers/universal_tagset")
MASKED_LM = "bert-base-uncased"
WORD_PIECES = 2  # words of more pieces are left alone: 48 candidates per piece would be 48^pieces words (ours)


class Paper:
    """See `resources.Resources`."""

    def __init__(self, folder: str) -> None:
        self.folder = folder  # what is fetched is kept below it

    def sentences(self, limit: float) -> UniversalSentenceEncoder:
        """Universal Sentence Encoder, cosine of the whole texts (ours: one meaning of the limit in both sets)."""
        for package in ("tensorflow", "tensorflow_hub"):
            if importlib.util.find_spec(package) is None:
                raise UserError(
                    f"attack.resources=paper needs Universal Sentence Encoder, and for it the package {package}: run "
                    f"`pip install tensorflow tensorflow_hub` with a network, or take attack.resources=offline."
                )
        # Else it would be fetched into the system's temporary folder.
        os.environ.setdefault("TFHUB_CACHE_DIR", str(Path(self.folder).expanduser() / "tfhub"))
        constraint = UniversalSentenceEncoder(threshold=limit, metric="cosine", compare_against_original=True)
        constraint.model = _fetched("Universal Sentence Encoder (tfhub.dev)", _sentence_encoder)
        return constraint

    def synonyms(self) -> WordEmbedding:
        return _fetched("the counter-fitted word vectors", WordEmbedding.counterfitted_GLOVE_embedding)

    def word_classes(self) -> PartOfSpeech:
        for resource in TAGGER:
            try:
                nltk.data.find(resource)
            except LookupError:
                nltk.download(resource.split("/")[1], quiet=True)
        _fetched(
            "NLTK's part-of-speech tagger (or `python -m nltk.downloader averaged_perceptron_tagger_eng "
            "universal_tagset` elsewhere and NLTK_DATA)",
            lambda: nltk.pos_tag(["word"], tagset="universal"),
        )
        return PartOfSpeech(allow_verb_noun_swap=True)

    def context(self, max_candidates: int) -> WordSwapMaskedLM:
        model, tokenizer = _fetched(MASKED_LM, _masked_lm)
        return FewPieces(model, max_candidates, tokenizer)


@cache
def _sentence_encoder() -> Any:
    """Loaded once per process, whichever attack asks."""
    constraint = UniversalSentenceEncoder()
    constraint.encode(["a first text"])
    return constraint.model


@cache
def _masked_lm() -> tuple[Any, Any]:
    """Model and tokenizer, loaded once per process."""
    tokenizer = AutoTokenizer.from_pretrained(MASKED_LM, use_fast=True)
    return AutoModelForMaskedLM.from_pretrained(MASKED_LM), tokenizer


class FewPieces(WordSwapMaskedLM):
    """BERT-Attack's candidates, words of more than two word pieces left alone (ours)."""

    def __init__(self, model: Any, max_candidates: int, tokenizer: Any) -> None:
        super().__init__("bert-attack", model, tokenizer, max_candidates=max_candidates)

    def _bert_attack_replacement_words(self, current_text, index, id_preds, masked_lm_logits) -> list[str]:
        pieces = self._lm_tokenizer.encode(current_text.words[index], add_special_tokens=False)
        if len(pieces) > WORD_PIECES:
            return []
        return super()._bert_attack_replacement_words(current_text, index, id_preds, masked_lm_logits)


def _fetched(what: str, get: Callable[[], Any]) -> Any:
    """What `get` returns; every way in which a fetch is known to fail becomes one sentence."""
    try:
        return get()
    except UserError:
        raise
    except Exception as error:  # TextAttack raises no kind of its own
        reason = " ".join(str(error).split())[:200]
    raise UserError(
        f"attack.resources=paper could not get {what}: connect to a network once, after which it stays in the cache, "
        f"or take attack.resources=offline; delete TextAttack's cache (~/.cache/textattack) if it holds what a failed "
        f"fetch has left. Reason given: {reason}"
    )
