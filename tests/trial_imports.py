"""What `trials` imports once for all calls."""

# ruff: noqa: E402, F401

import os

os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

from winnow.quiet import quiet

quiet()

import gc

import composed
import hydra._internal.hydra
import lm_eval.models.huggingface
import matplotlib.pyplot
import peft

import winnow.__main__
import winnow.config
import winnow.evaluation.loading
import winnow.evaluation.model
import winnow.perturb.attacks.prompts
import winnow.pipeline
import winnow.tuning.tuner

winnow.config.compose()  # Hydra looks for its plugins once, and its parsers learn their grammar

gc.freeze()  # no collector of a forked process walks through what is imported here
