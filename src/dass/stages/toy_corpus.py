"""Write the stand-ins' toy corpus: documents, articles and five tasks."""

from dass.standins.writing import write_corpus as toy_corpus

__all__ = ["toy_corpus"]
