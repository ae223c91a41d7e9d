"""How a job behaves: files, progress, provenance, GPUs, logging and errors."""
