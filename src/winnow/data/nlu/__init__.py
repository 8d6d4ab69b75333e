"""NLU data sets as instruction records: named entities, relations, classes and sentiment triplets."""

from winnow.data.nlu.datasets import DATASETS, Dataset
from winnow.data.nlu.reading import read_nlu, read_nlu_tasks

__all__ = ["DATASETS", "Dataset", "read_nlu", "read_nlu_tasks"]
