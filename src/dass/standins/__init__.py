"""Stand-ins for the paper's models and data: a toy world's text, its questions, models of it.

They let the whole study run offline and in minutes. What they yield says nothing about the
paper's models.
"""

FAMILIES = ("llama", "mistral", "gemma")
DEFAULT_DOCUMENTS = 2400
DEFAULT_STEPS = 600
