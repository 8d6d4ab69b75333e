"""One file per method: the passes it needs, and one pure function from their columns to a score.

A method offers
    name: str
    passes: dict[str, Pass]           what has to be computed, under names of the method's own
    score(tables: dict[str, PassTable], records) -> Scores
    filters: list[Range]              which scored records are not eligible, with the reason
and may set `takes_all = True` if it selects everything.
"""
