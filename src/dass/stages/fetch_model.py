"""Fetch one model from the hub."""

from dass.data.hub import fetch_model

__all__ = ["fetch_model"]
