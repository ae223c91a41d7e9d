"""The tokenizer of words that stages are tested with, too."""

from tests.unit.stages.conftest import save_words

__all__ = ["save_words"]
