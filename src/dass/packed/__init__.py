"""Packed sparse weights, and products with them that are faster than dense ones at decode."""
