"""Make one stand-in model: the repository's own, or one trained on the toy world's documents."""

from dass.standins.shipped import make_standin as train_standin

__all__ = ["train_standin"]
