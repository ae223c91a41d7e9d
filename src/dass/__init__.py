"""DaSS, reproduced: pruning of gated MLPs in language models, and what it costs.

Every stage of the pipeline is a module here and can be used alone; see ``docs/library.md``.
"""

__version__ = "0.1.0"
