"""What to remove: methods, masks, patterns, and the pruned file."""
