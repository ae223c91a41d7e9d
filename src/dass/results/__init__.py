"""What a run measured: the schema of result files, summaries, published numbers."""
