"""One file per method: the passes that it needs, and the formula that makes a score of their columns. What a method
offers, `winnow.scoring.protocols.Method` says."""
