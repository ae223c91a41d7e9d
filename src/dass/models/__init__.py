"""A model block by block: weights, decoder blocks, GLUs, batches of activations."""
