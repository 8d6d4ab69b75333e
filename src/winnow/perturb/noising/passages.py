"""Unrelated texts for in-context padding, by kind of task: they look like its texts and say nothing about it.
Written for this project; persons and places are invented."""

from __future__ import annotations

PASSAGES: dict[str, tuple[str, ...]] = {
    "ner": (
        "The early train to Marrowby was late again on Monday because snow had covered the points near the old mill. "
        "Passengers waited in the hall, where a woman from the bakery handed out warm rolls, and the stationmaster "
        "told the children how the clock tower had been moved stone by stone after the flood. By noon the line was "
        "clear and two extra carriages were sent from the depot, so that everybody reached the market before it "
        "closed.",
        "In spring the gardeners of Hollin Park plant four thousand tulips along the lake. The bulbs are kept in dry "
        "sand over the winter, sorted by colour and put into the ground by hand, one hand's breadth apart. Visitors "
        "may take photographs but must stay on the gravel, and dogs are welcome on the eastern side as long as they "
        "are kept on a lead.",
    ),
    "re": (
        "The bridge over the Ester was built from oak that had been dried for seven years. Each beam was marked with a "
        "number, carried to the bank by oxen and fitted without a single nail. When the water is low one can still see "
        "the posts of an older crossing, and in the mud between them anglers have found coins, a ladle and half of a "
        "bronze bell.",
        "To keep bread fresh for a week, wrap it in linen and store it in a clay pot with a wooden lid. A slice of "
        "apple keeps the crust from getting hard, while a closed plastic bag makes it soft within a day. Bread that "
        "has become dry is not lost: cut it into cubes, roast them in a pan with a little oil and use them in soups.",
    ),
    "classification": (
        "Water boils at a lower temperature on a high mountain, since the air presses less upon its surface. Climbers "
        "who cook beans at four thousand metres therefore need patience or a pot with a tight lid. Tea suffers as "
        "well: the leaves give less of their colour, and many people who live in the highlands simmer them with butter "
        "and salt in place of pouring water over them.",
        "The swimming hall opens at seven on weekdays and at nine on Sundays. Lockers take a coin, which is returned, "
        "and towels can be borrowed at the desk. Children under eight must be with an adult in the large pool, whereas "
        "the small one has its own attendant. On the first Friday of the month the hall closes at four so that the "
        "filters can be cleaned.",
    ),
    "absa": (
        "Our cycling route starts behind the town hall and follows the canal for eleven kilometres. After the second "
        "lock turn left, cross the meadow and push the bicycle up a short slope to the chapel, from whose steps one "
        "can see three counties. The way back leads through the woods, where the path is wide and flat, and ends at "
        "the fountain on the square.",
        "A violin is tuned in fifths from the lowest string to the highest. Beginners turn the pegs only a little at a "
        "time and press them inwards as they turn, because a peg that slips can break the string. Fine tuners at the "
        "lower end help with the last small step. In a warm room the instrument should rest for some minutes before "
        "it is tuned.",
    ),
}
