"""Selection: from scores to a subset, with a reason for every record."""
