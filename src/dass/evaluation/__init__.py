"""What a run is worth: perplexity and zero-shot accuracy."""
