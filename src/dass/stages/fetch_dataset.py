"""Fetch one data set from the hub as JSON lines."""

from dass.data.hub import fetch_dataset

__all__ = ["fetch_dataset"]
