"""Train one stand-in model on the toy world's documents."""

from dass.standins.training import train_standin

__all__ = ["train_standin"]
