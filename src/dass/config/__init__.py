"""The settings of a study: validated, closed and documented."""
