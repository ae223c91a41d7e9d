"""Text to token windows, and whatever is fetched from a hub."""
