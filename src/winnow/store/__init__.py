"""Everything that lasts: artifacts and columns by identity, the run folder, every atomic write."""
