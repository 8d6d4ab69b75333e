"""Instructions for each data set, written for this project: detailed, concise, and opposite ones for the noise.

A detailed instruction explains task, types and answer; a concise one names the task. An opposite instruction asks for
something else, or for the contrary, of the same text.
"""

from __future__ import annotations

STYLES = ("detailed", "concise")

INSTRUCTIONS: dict[str, dict[str, str]] = {
    "conll03": {
        "detailed": "Read the text and find every named entity in it. A named entity is a person, an organization such "
        "as a company, party or team, a location such as a city, country or river, or something miscellaneous such as "
        "a nationality, an event or a product. Write each one as its type, a colon and the words exactly as they stand "
        "in the text, in the order of the text, separated by semicolons. If there is no entity, write none.",
        "concise": "Find the named entities in the text and give the type of each.",
    },
    "ontonotes": {
        "detailed": "Read the text and find every named entity in it: people, groups, organizations, places, "
        "facilities, products, events, works of art, laws and languages, and also dates, times, percentages, amounts "
        "of money, quantities, ordinal and cardinal numbers. Write each one as its type, a colon and the words exactly "
        "as they stand in the text, in the order of the text, separated by semicolons. If there is no entity, write "
        "none.",
        "concise": "List all names, dates and numbers in the text with their entity types.",
    },
    "nyt": {
        "detailed": "Read the news text and find every pair of entities between which it states one of the listed "
        "relations. Write each finding as the relation, a colon, the entity that the relation starts from, a vertical "
        "bar and the entity that it leads to, both exactly as they stand in the text, and separate findings by "
        "semicolons. Report only what the text says. If it states no relation, write none.",
        "concise": "Extract the relations between entities that the news text states.",
    },
    "webnlg": {
        "detailed": "Read the text and write down every fact in it as a relation between two entities. Name the "
        "relation in one to four words, put a colon after it, then the entity that the fact is about, a vertical bar "
        "and the entity or value that it is linked to, both exactly as they stand in the text. Separate facts by "
        "semicolons and add nothing that the text does not say.",
        "concise": "Extract all facts from the text as relations between two entities.",
    },
    "scierc": {
        "detailed": "Read the sentence from a scientific abstract. First find every scientific term in it and decide "
        "whether it is a task, a method, a material, a metric, a generic term or another term. Then decide which of "
        "the listed relations hold between these terms. Write each term as its type, a colon and its words, then each "
        "relation as its name, a colon and the two terms with a vertical bar between them, all separated by "
        "semicolons. If there is no term, write none.",
        "concise": "Extract the scientific terms and the relations between them from the sentence.",
    },
    "sst2": {
        "detailed": "Read this piece of a movie review and decide how its author feels about the movie. Judge the text "
        "as a whole, with its irony and its negations, and not single words in it. Answer positive if the author "
        "approves, and negative if the author disapproves. Choose one of the two options even where the judgement is "
        "mild, and write nothing but that option.",
        "concise": "Classify the sentiment of this movie review as positive or negative.",
    },
    "agnews": {
        "detailed": "Read the title and the beginning of a news article and decide which section of a newspaper it "
        "belongs to. World is for politics and events between and inside countries, Sports for matches, athletes and "
        "teams, Business for companies, markets and the economy, and Sci/Tech for science, computers and the internet. "
        "Choose the one section that fits best and write nothing but its name.",
        "concise": "Choose the topic that fits this news text.",
    },
    "lap14": {
        "detailed": "Read the review of a laptop and find every aspect of the product that is judged, such as its "
        "screen, battery, price or service. For each aspect find the words that express the opinion and decide whether "
        "they are positive, negative or neutral. Write each finding as the sentiment, a colon, the aspect, a vertical "
        "bar and the opinion words, exactly as they stand in the text, and separate findings by semicolons. If nothing "
        "is judged, write none.",
        "concise": "Extract aspect, opinion words and sentiment from the laptop review.",
    },
    "rest14": {
        "detailed": "Read the review of a restaurant and find every aspect of the visit that is judged, such as a "
        "dish, the staff, the room or the bill. For each aspect find the words that express the opinion and decide "
        "whether they are positive, negative or neutral. Write each finding as the sentiment, a colon, the aspect, a "
        "vertical bar and the opinion words, exactly as they stand in the text, and separate findings by semicolons. "
        "If nothing is judged, write none.",
        "concise": "Extract aspect, opinion words and sentiment from the restaurant review.",
    },
}

_NO_NAMES = (
    "Leave out every named entity and list only the ordinary nouns of the text, without any type.",
    "Give each name in the text a type that does not fit it, and skip the names that you are sure about.",
    "Rewrite the text so that no person, place or organization can be recognised any more.",
    "Count the verbs of the text and pay no attention to names.",
)
_NO_RELATIONS = (
    "List pairs of entities between which the text states no relation at all.",
    "Swap the two entities of every relation and give each relation a name that does not fit.",
    "Describe the style of the text and say nothing about who is linked to what.",
    "Name only the words of the text that belong to no entity.",
)
_NO_ASPECTS = (
    "List the parts of the review that express no opinion, and give them no sentiment.",
    "Turn every judgement of the review into its contrary: call praised things negative and blamed things positive.",
    "Write an advertisement that hides all weaknesses the review mentions.",
    "Find the sentences without any aspect and count their words.",
)

OPPOSITE: dict[str, tuple[str, ...]] = {
    "conll03": _NO_NAMES,
    "ontonotes": _NO_NAMES,
    "nyt": _NO_RELATIONS,
    "webnlg": _NO_RELATIONS,
    "scierc": (
        "List the words of the sentence that are no scientific terms, and relate none of them.",
        "Give every scientific term a type that does not fit it and link only terms that are unrelated.",
        "Summarise the sentence for a child without using a single technical term.",
        "Judge whether the abstract is well written and ignore its terms and relations.",
    ),
    "sst2": (
        "Answer positive if the author disapproves of the movie, and negative if the author approves of it.",
        "Ignore what the author feels and say whether the review is long or short.",
        "Choose the sentiment that the author of this review would never agree with.",
        "Guess the genre of the movie and keep silent about the opinion of the review.",
    ),
    "agnews": (
        "Choose the topic that fits this news text least.",
        "Ignore the topic of the article and say in which language it is written.",
        "Name a section of the newspaper in which this article must not appear.",
        "Decide whether the article is true or made up, whatever it is about.",
    ),
    "lap14": _NO_ASPECTS,
    "rest14": _NO_ASPECTS,
}
