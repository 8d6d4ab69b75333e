"""One file per method: the passes it needs, and one pure function from their columns to a score.

A method offers
    name: str
    passes: dict[str, Pass]           what has to be computed, under names of the method's own
    target_passes: dict[str, Pass]    the same over a second pool, for a method that aims at one
    score(tables: dict[str, PassTable], records) -> Scores
    filters: list[Range]              which scored records are not eligible, with the reason
and may set `takes_all = True` if it selects everything.
"""
