"""docs/reliability.md says what the tests do."""

from reliability_page import PAGE, page, rows


def test_the_page_is_current():
    """It is what its script writes."""
    assert PAGE.read_text(encoding="utf-8") == page(), "run `python tests/faults/reliability_page.py`"


def test_every_row_is_whole():
    """No two rows are of one fault, and no cell would break the table."""
    found = rows()
    assert len(found) >= 20 and len({fault for fault, *_ in found}) == len(found)
    assert not any("|" in cell or "\n" in cell for row in found for cell in row)
