"""TextFooler: synonyms of the same part of speech.

Up to 50 nearest words, their cosine with the word at least 0.6, the part of speech kept (verb and noun may swap); the
sentence encoder must see a similarity of at least 0.84. Its authors' own stop words are kept. Source: Jin et al. 2019
(arXiv 1907.11932), with PromptBench's settings.
"""

from __future__ import annotations

from typing import Any

from winnow.perturb.attacks.base import WordAttack
from winnow.perturb.attacks.resources import Resources, written

# The list in the authors' code.
STOP_WORDS = """
a about above across after afterwards again against ain all almost alone along already also although am among
amongst an and another any anyhow anyone anything anyway anywhere are aren aren't around as at back been before
beforehand behind being below beside besides between beyond both but by can cannot could couldn couldn't d didn
didn't doesn doesn't don don't down due during either else elsewhere empty enough even ever everyone everything
everywhere except first for former formerly from hadn hadn't hasn hasn't haven haven't he hence her here
hereafter hereby herein hereupon hers herself him himself his how however hundred i if in indeed into is isn
isn't it it's its itself just latter latterly least ll may me meanwhile mightn mightn't mine more moreover most
mostly must mustn mustn't my myself namely needn needn't neither never nevertheless next no nobody none noone
nor not nothing now nowhere o of off on once one only onto or other others otherwise our ours ourselves out over
per please s same shan shan't she she's should've shouldn shouldn't somehow something sometime somewhere such t
than that that'll the their theirs them themselves then thence there thereafter thereby therefore therein
thereupon these they this those through throughout thru thus to too toward towards under unless until up upon
used ve was wasn wasn't we were weren weren't what whatever when whence whenever where whereafter whereas
whereby wherein whereupon wherever whether which while whither who whoever whole whom whose why with within
without won won't would wouldn wouldn't y yet you you'd you'll you're you've your yours yourself yourselves
"""


class TextFooler(WordAttack):
    """max_candidates: nearest words; min_word_similarity: cosine of the old and the new word; min_similarity: cosine of
    the sentence encoder to the original instruction."""

    level, needs, ranking = "word", ("synonyms", "word_classes", "sentences"), "delete"

    def __init__(self, max_candidates: int, min_word_similarity: float, min_similarity: float, **shared: Any) -> None:
        super().__init__(**shared)
        self.max_candidates, self.min_word_similarity = max_candidates, min_word_similarity
        self.min_similarity = min_similarity

    def stop_words(self) -> frozenset[str]:
        return written(STOP_WORDS.split())

    def transformation(self, resources: Resources) -> Any:
        from textattack.transformations import WordSwapEmbedding

        return WordSwapEmbedding(max_candidates=self.max_candidates, embedding=resources.synonyms())

    def constraints(self, resources: Resources) -> list[Any]:
        from textattack.constraints.semantics import WordEmbeddingDistance

        kept = [resources.word_classes(), resources.sentences(self.min_similarity)]
        if not self.min_word_similarity:  # TextAttack takes 0 for no limit, and wants one
            return kept
        return [WordEmbeddingDistance(embedding=resources.synonyms(), min_cos_sim=self.min_word_similarity), *kept]
