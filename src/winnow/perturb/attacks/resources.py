"""What attacks draw on: TextAttack itself, stop words, and the set of models that `attack.resources` names.

    offline   everything comes from installed packages: all-MiniLM-L6-v2 as sentence encoder and as source of word
              vectors, lemminflect's dictionary for parts of speech, SmolLM2 for candidates from the context
    paper     what the attacks' papers used, fetched by TextAttack: counter-fitted vectors, Universal Sentence Encoder,
              NLTK's tagger, bert-base-uncased

The set is never switched silently: what is missing is one UserError.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol
from unittest.mock import patch

from winnow.backbone import packaged
from winnow.backbone.sentence_encoder import SentenceEncoder
from winnow.errors import UserError, check_choice

RESOURCES = ("offline", "paper")
CONTEXT_MODEL = "packaged:smollm2_135m"
VECTORS_VERSION = 1  # of the way in which the offline word vectors are made
NLTK_DATA = Path(__file__).with_name("nltk_data")  # English stop words alone
STOP_WORDS = {"package": "llama-index-core", "version": "0.14.25"}  # where this copy of NLTK's list was taken from


class Resources(Protocol):
    """The parts of an attack that stand on outside knowledge, as TextAttack's own kinds of objects."""

    def sentences(self, limit: float): ...  # a Constraint: similarity to the original instruction >= limit

    def synonyms(self): ...  # an AbstractWordEmbedding

    def word_classes(self): ...  # a Constraint: same part of speech, verb and noun may swap

    def context(self, max_candidates: int): ...  # a Transformation: candidates from the words around


def load(name: str, folder: str) -> Resources:
    """The set `name`, with TextAttack imported. folder: winnow's cache (paths.cache)."""
    import_textattack(folder)
    # These modules build on TextAttack's classes, so they can only be imported now.
    if name == "paper":
        from winnow.perturb.attacks.paper import Paper

        return Paper(folder)
    from winnow.perturb.attacks.offline import Offline

    return Offline(folder)


def identities(name: str, needs: Sequence[str]) -> dict[str, Any]:
    """What each of the named resources is: name and version. Loads nothing; UserError if a package is missing."""
    check_choice("attack.resources", name, RESOURCES)
    found: dict[str, Any] = {"set": name, "textattack": _version("textattack")}
    for need in needs:
        found[need] = _paper(need) if name == "paper" and need != "stop_words" else _offline(need)
    return found


def _offline(need: str) -> Any:
    if need == "stop_words":
        return STOP_WORDS
    if need == "sentences":
        return SentenceEncoder().identity
    if need == "synonyms":
        return SentenceEncoder().identity | {"words": _version("lemminflect"), "vectors": VECTORS_VERSION}
    if need == "word_classes":
        return {"package": "lemminflect", "version": _version("lemminflect")}
    return packaged.packaged_identity(CONTEXT_MODEL) | {"words": _version("lemminflect")}


def _paper(need: str) -> str:
    return {
        "sentences": "universal-sentence-encoder/3",
        "synonyms": "paragramcf",
        "word_classes": f"nltk {_version('nltk')} averaged_perceptron_tagger_eng",
        "context": "bert-base-uncased",
    }[need]


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        raise UserError(
            f"attack.resources needs the package {distribution}, which is not installed: "
            f"run `pip install -c requirements.txt -e '.[attacks]'` in the repository."
        ) from None


@cache
def stop_words() -> frozenset[str]:
    """NLTK's 198 English stop words, each also capitalised and in capitals.

    TextAttack compares words as they are written, so that `What` would not count as the stop word `what` (ours).
    """
    return written((NLTK_DATA / "corpora/stopwords/english").read_text(encoding="utf-8").split())


def written(words: Sequence[str]) -> frozenset[str]:
    """The words, the words capitalised, and the words in capitals."""
    return frozenset(form for word in words for form in (word, word.capitalize(), word.upper()))


def import_textattack(folder: str) -> None:
    """Import TextAttack without its downloads and without the changes that its import makes to this process.

    On its first import it would fetch NLTK data; a marker in its cache folder says that this was done. It also points
    the Hugging Face caches into that folder and disables loggers that exist already; both are put back.
    """
    if "textattack" in sys.modules:
        return
    # These read the place of their cache when they are imported, so they come first.
    import datasets.config  # noqa: F401
    import huggingface_hub.constants  # noqa: F401
    import nltk
    import transformers.utils.hub

    nltk.data.path.append(str(NLTK_DATA))
    own = Path(os.environ.get("TA_CACHE_DIR", Path(folder).expanduser() / "textattack"))
    try:
        own.mkdir(parents=True, exist_ok=True)
        (own / "post_install_check_3").touch()
    except OSError as error:
        raise UserError(f"paths.cache={folder} cannot be written ({error.strerror}): name another folder.") from None
    known = [one for one in logging.Logger.manager.loggerDict.values() if isinstance(one, logging.Logger)]
    before = [(logger, logger.disabled) for logger in known]
    with patch.dict(os.environ, TA_CACHE_DIR=str(own)):
        try:
            import textattack.shared
        except ImportError as error:
            raise UserError(
                f"TextAttack cannot be imported ({error}): attacks need transformers 4, found "
                f"{transformers.__version__}; run `pip install -c requirements.txt -e '.[attacks]'` in the repository, "
                f"in an environment of its own."
            ) from error
        finally:
            for logger, disabled in before:
                logger.disabled = disabled

    # It warns of every goal function that it does not know, and tells of every file that it opens.
    textattack.shared.logger.setLevel(logging.ERROR)
    logging.getLogger("jieba").setLevel(logging.ERROR)
