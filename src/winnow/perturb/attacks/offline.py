"""The offline set: stand-ins from installed packages for what the attacks' papers fetched.

Imported through `resources.load` only: it builds on TextAttack's classes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache, cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
from lemminflect import getAllLemmas
from textattack.constraints.grammaticality import PartOfSpeech
from textattack.constraints.semantics.sentence_encoders import SentenceEncoder as SentenceConstraint
from textattack.shared import AbstractWordEmbedding, AttackedText
from textattack.transformations import WordSwap
from textattack.transformations.word_swaps.word_swap_embedding import recover_word_case

from winnow.backbone.causal_model import CausalModel
from winnow.backbone.loading import BackboneSource
from winnow.perturb.attacks.resources import CONTEXT_MODEL, VECTORS_VERSION, identities, stop_words
from winnow.perturb.attacks.sentence_vectors import encoder, remembered_vectors, sentence_vectors
from winnow.store.files import cached

REMEMBERED = 64  # instructions whose predictions are kept
# What the context model reads before the instruction, so that the first word has a context too (ours).
OPENING = "<|im_start|>user\n"
CLASSES = ("ADJ", "ADV", "AUX", "NOUN", "PROPN", "VERB")  # parts of speech that lemminflect tells apart
WINDOW = 1024  # tokens of an instruction that the context model reads; words beyond it have no candidates


class Offline:
    """See `resources.Resources`."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def sentences(self, limit: float) -> SentenceSimilarity:
        return SentenceSimilarity(limit)

    def synonyms(self) -> WordVectors:
        return word_vectors(self.folder)

    def word_classes(self) -> SharedWordClass:
        return SharedWordClass()

    def context(self, max_candidates: int) -> LeftContextCandidates:
        return LeftContextCandidates(self.folder, max_candidates)


class SentenceSimilarity(SentenceConstraint):
    """Cosine of MiniLM's vectors of the whole new and the whole original instruction, at least `threshold`."""

    def __init__(self, limit: float) -> None:
        super().__init__(threshold=limit, metric="cosine", compare_against_original=True)
        encoder()  # loaded now, not amid an attack's draws

    def _score_list(self, starting_text: AttackedText, transformed_texts: list[AttackedText]) -> torch.Tensor:
        # TextAttack's own would encode the original once per candidate.
        if not transformed_texts:
            return torch.tensor([])
        vectors = remembered_vectors([starting_text.text, *(text.text for text in transformed_texts)])
        return vectors[1:] @ vectors[0]


@cache
def word_classes(word: str) -> frozenset[str]:
    """Universal parts of speech that lemminflect's dictionary knows for a word; empty for an unknown one."""
    return frozenset(getAllLemmas(word.lower()))


class SharedWordClass(PartOfSpeech):
    """Old and new word have a part of speech in common in lemminflect's dictionary; verb and noun may swap.

    Stands in for a tagger: the words are looked up one by one, their context is not read.
    """

    def __init__(self) -> None:
        # Not the parent's: it would load a tagger.
        super(PartOfSpeech, self).__init__(compare_against_original=True)
        self.tagger_type, self.tagset, self.allow_verb_noun_swap = "lemminflect", "universal", True

    def clear_cache(self) -> None:
        """Nothing is kept that belongs to one text."""

    def _check_constraint(self, transformed_text: AttackedText, reference_text: AttackedText) -> bool:
        changed = transformed_text.attack_attrs["newly_modified_indices"]
        return all(self._may_swap(reference_text.words[i], transformed_text.words[i]) for i in changed)

    def _may_swap(self, old: str, new: str) -> bool:
        return any(self._can_replace_pos(a, b) for a in word_classes(old) for b in word_classes(new))


class WordVectors(AbstractWordEmbedding):
    """MiniLM's vector of each single word; nearest by cosine.

    The words that can be proposed are MiniLM's own whole words of two or more letters that lemminflect's dictionary
    knows. Any word of that dictionary can be asked about: its vector is made when it is first met.
    """

    def __init__(self, words: Sequence[str], matrix: np.ndarray) -> None:
        self.words, self.matrix = list(words), matrix
        self.index = {word: i for i, word in enumerate(self.words)}
        self._neighbours: dict[tuple[int, int], list[int]] = {}
        self._further: list[np.ndarray] = []  # vectors of words that were asked about and cannot be proposed

    def __getitem__(self, index: int | str) -> np.ndarray:
        index = self.word2index(index) if isinstance(index, str) else index
        known = len(self.matrix)
        return self.matrix[index] if index < known else self._further[index - known]

    def word2index(self, word: str) -> int:
        if word not in self.index:
            if not word_classes(word):
                raise KeyError(word)
            self.index[word] = len(self.words)
            self.words.append(word)
            self._further.append(sentence_vectors([word])[0].numpy())
        return self.index[word]

    def index2word(self, index: int) -> str:
        return self.words[index]

    def get_cos_sim(self, a: int | str, b: int | str) -> float:
        return float(self[a] @ self[b])

    def get_mse_dist(self, a: int | str, b: int | str) -> float:
        return float(((self[a] - self[b]) ** 2).sum())

    def nearest_neighbours(self, index: int, topn: int) -> list[int]:
        """The `topn` words that can be proposed with the largest cosine, largest first, the word itself left out."""
        if (index, topn) not in self._neighbours:
            order = np.argsort(-(self.matrix @ self[index]), kind="stable")[: topn + 1].tolist()
            self._neighbours[index, topn] = [i for i in order if i != index][:topn]
        return self._neighbours[index, topn]


@cache
def word_vectors(folder: str) -> WordVectors:
    """The vectors of all words that can be proposed: made once (about 20 s), then read from winnow's cache."""
    known = identities("offline", ["synonyms"])["synonyms"]
    name = f"minilm-words-{known['version']}-{known['words']}-v{VECTORS_VERSION}"

    def make(target: Path) -> None:
        words = sorted(w for w in encoder().tokenizer.get_vocab() if re.fullmatch("[a-z]{2,}", w) and word_classes(w))
        print(f"Making the vectors of {len(words):,} words, once ...", flush=True)
        np.savez(
            target / "words.npz", words=np.array(words), vectors=sentence_vectors(words).numpy().astype(np.float16)
        )

    with np.load(cached(Path(folder).expanduser() / name, make) / "words.npz") as stored:
        matrix = stored["vectors"].astype(np.float32)
        return WordVectors(stored["words"].tolist(), matrix / np.linalg.norm(matrix, axis=1, keepdims=True))


class LeftContextCandidates(WordSwap):
    """The whole words that a causal language model finds most likely after the words before.

    Stands in for a masked language model, of which none is packaged. The words to the right are not read; in their
    place speak the limit on sentence similarity and a part of speech in common with the old word (ours). One forward
    over the original instruction serves all its words, as in BERT-Attack. Stop words are no candidates [BERT-Attack
    code].
    """

    def __init__(self, folder: str, max_candidates: int) -> None:
        super().__init__()
        model = _context_model(folder)
        self.candidates = lru_cache(REMEMBERED)(lambda text: model.words_at(AttackedText(text), max_candidates))

    def _get_transformations(self, current_text: AttackedText, indices_to_modify) -> list[AttackedText]:
        original = current_text
        while "previous_attacked_text" in original.attack_attrs:
            original = original.attack_attrs["previous_attacked_text"]
        candidates = self.candidates(original.text)
        return [
            current_text.replace_word_at_index(i, word)
            for i in sorted(indices_to_modify)
            for word in candidates[i]
            if word != current_text.words[i]
        ]


class ContextModel:
    """A packaged causal language model that proposes a word for each place of a text."""

    def __init__(self, folder: str) -> None:
        backbone = BackboneSource(
            CONTEXT_MODEL,
            revision=None,
            dtype="fp32",
            attn_implementation="eager",
            trust_remote_code=False,
            cache=folder,
        ).load()
        self.causal, self.tokenizer = CausalModel(backbone.model), backbone.tokenizer
        self.opening = self.tokenizer(OPENING, add_special_tokens=False)["input_ids"]

    @cached_property
    def whole_words(self) -> dict[bool, tuple[list[str], torch.Tensor, torch.Tensor]]:
        """Tokens that are a whole word, after a blank (True) and elsewhere (False).

        Each as (words, rows of the head (words, width), parts of speech as a bit set per word).
        """
        found: dict[bool, list[tuple[int, str]]] = {True: [], False: []}
        for token, i in sorted(self.tokenizer.get_vocab().items()):
            word = token.removeprefix("Ġ")
            if re.fullmatch("[A-Za-z][a-z]+", word) and word not in stop_words() and word_classes(word):
                found[token != word].append((i, word))
        head = self.causal.head.weight
        return {
            blank: (
                [word for _, word in pairs],
                head[[i for i, _ in pairs]].clone(),
                torch.tensor([self._bits(word) for _, word in pairs]),
            )
            for blank, pairs in found.items()
        }

    def _bits(self, word: str) -> int:
        """Parts of speech as a bit set; all bits for a word that the dictionary does not know."""
        known = word_classes(word)
        return sum(1 << CLASSES.index(kind) for kind in known if kind in CLASSES) if known else -1

    @torch.inference_mode()
    def words_at(self, text: AttackedText, count: int) -> list[list[str]]:
        """For each word of `text` the `count` most likely words in its place, most likely first."""
        encoded = self.tokenizer(text.text, add_special_tokens=False, return_offsets_mapping=True)
        ids, offsets = encoded["input_ids"][:WINDOW], encoded["offset_mapping"][:WINDOW]
        hidden = self.causal.hidden(input_ids=torch.tensor([self.opening + ids]))[0]
        proposals, begin = [], 0
        for word in text.words:
            begin = text.text.find(word, begin)
            # The last token that ends before the word; a blank belongs to the word's own first token.
            blank = begin > 0 and text.text[begin - 1] == " "
            before = sum(1 for _, stop in offsets if stop <= begin - blank)
            begin += len(word)
            if before >= len(ids):
                proposals.append([])
                continue
            words, rows, classes = self.whole_words[blank]
            logits = rows @ hidden[len(self.opening) + before - 1]
            logits = logits.masked_fill(classes & self._bits(word) == 0, -torch.inf)
            best = logits.topk(min(2 * count, len(words))).indices.tolist()
            cased = dict.fromkeys(recover_word_case(words[i], word) for i in best if logits[i] > -torch.inf)
            proposals.append([candidate for candidate in cased if candidate != word][:count])
        return proposals


_context_model = cache(ContextModel)
