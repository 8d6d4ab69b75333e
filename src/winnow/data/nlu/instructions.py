"""Instructions for each data set, written for this project: detailed, concise, and opposite ones for the noise.

A detailed instruction explains task, types and answer; a concise one names the task. A data set has eight of each, of
unlike lengths, so that the distances by which its distortion is measured differ. An opposite instruction asks for
something else, or for the contrary, of the same text.
"""

from __future__ import annotations

STYLES = ("detailed", "concise")

INSTRUCTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "conll03": {
        "detailed": (
            "Read the text and find every named entity in it. A named entity is a person, an organization such as a "
            "company, party or team, a location such as a city, country or river, or something miscellaneous such as "
            "a nationality, an event or a product. Write each one as its type, a colon and the words exactly as they "
            "stand in the text, in the order of the text, separated by semicolons. If there is no entity, write none.",
            "Mark up the named entities of this news text. Four types are asked for: person, organization, location "
            "and miscellaneous, the last one for nationalities, events, titles and products. Give the type, a colon "
            "and the entity with the spelling of the text. Keep the order in which the entities appear, put a "
            "semicolon after each but the last, and answer none where the text names nothing.",
            "You are given one sentence of a news report. Go through it word by word and pick out each name: people, "
            "organizations of every kind, places, and other names such as those of nations, prizes, wars or products. "
            "For each name write person, organization, location or miscellaneous, then a colon, then the name as it "
            "is printed. Use semicolons between the names. Write none if you find no name.",
            "An editor wants an index of the names in this text. List every person, every organization and every "
            "location, and as miscellaneous the names that fit none of these three, for example of competitions, "
            "languages or peoples. An entry consists of the type, a colon and the exact words. Do not change capital "
            "letters, do not shorten names, and part the entries by semicolons. An empty index is written as none.",
            "Find the names in the text and sort each one into a class. A person is a human being or an invented one, "
            "an organization is a firm, a team, an agency or a party, a location is a place on the map, and all other "
            "proper names are miscellaneous. Name the class first, then a colon, then the words of the text. Several "
            "findings stand one after the other with semicolons between them. Say none if there is nothing to find.",
            "Decide for the words of this text whether they belong to a proper name. Words that stand together and "
            "name one thing form one entity. Label each entity as person, organization, location or miscellaneous. "
            "Write label, colon, entity, and a semicolon before the next one, from the first entity of the text to "
            "the last. Pronouns and common nouns do not count. Without any entity the answer is none.",
            "Recognise the named entities. Only four labels are allowed: person for people, organization for "
            "companies, clubs and institutions, location for cities, states, mountains and the like, miscellaneous "
            "for any further name. Copy each entity letter by letter, put its label and a colon before it, and part "
            "two entities by a semicolon. If the text has no entity at all, the whole answer is the word none.",
            "What does this text mention by name? Report people, organizations, locations and miscellaneous names, in "
            "this sense: whoever acts as a group is an organization, a country is a location even if its government "
            "is meant, and adjectives made from countries are miscellaneous. The form of a report is type, colon, "
            "name. Separate reports by semicolons, keep to the order of the text, add no comment, and write none when "
            "no name occurs.",
        ),
        "concise": (
            "Find the named entities in the text and give the type of each.",
            "Which named entities does the text contain, and of which type?",
            "List every entity of the text with its type.",
            "Extract persons, organizations, locations and miscellaneous names.",
            "Name each entity in this sentence together with its class.",
            "Recognise the named entities in the following news text.",
            "Pick out all proper names and label them.",
            "Write down the entities of the text, each after its type.",
        ),
    },
    "ontonotes": {
        "detailed": (
            "Read the text and find every named entity in it: people, groups, organizations, places, facilities, "
            "products, events, works of art, laws and languages, and also dates, times, percentages, amounts of "
            "money, quantities, ordinal and cardinal numbers. Write each one as its type, a colon and the words "
            "exactly as they stand in the text, in the order of the text, separated by semicolons. If there is no "
            "entity, write none.",
            "Mark every named entity of this text with one of eighteen types. They cover names (person, group, "
            "facility, organization, geopolitical entity, location, product, event, work of art, law, language) and "
            "values (date, time, percentage, money, quantity, ordinal, cardinal). Give the type, a colon and the "
            "words of the text, keep the order of the text, and separate the entities by semicolons. If nothing "
            "qualifies, answer none.",
            "Read the passage closely and collect all that is named, dated, measured or counted in it. Names may be "
            "of people, nationalities, buildings, companies, countries, other places, goods, happenings, books, "
            "statutes or languages. Values may be days, times of day, shares, prices, sizes, ranks or plain numbers. "
            "Write each finding as its type, a colon and its exact words, with semicolons between findings, or none "
            "if there are none.",
            "A database is to be filled from this text. For each entity it needs the type and the exact wording, "
            "joined by a colon. Countries, states and cities are geopolitical entities, other places are locations, "
            "and things that people build are facilities. Years and days are dates, and numbers that no other type "
            "covers are cardinals. Follow the order of the text, put semicolons between the entries, and write none "
            "for an empty list.",
            "Find the spans of this text that name somebody or something, or that state an amount or a point in time. "
            "Choose the longest sensible span and decide on one type from the options. Write type, colon, span. Go "
            "from left to right and part the findings by semicolons. Do not translate, complete or correct the words. "
            "A text without such a span is answered with none.",
            "Tag the entities in the text below. Do not forget the less obvious ones: an ordinal such as first, a "
            "percentage, a group such as a religion or a nationality, the title of a song as a work of art. Each "
            "entity is written after its type and a colon, and a semicolon stands between two entities. Repeat the "
            "words just as they are. Answer with the single word none if the text holds no entity.",
            "Here is a piece of spoken or written English. State which entities it mentions. The options name all "
            "types that may be used, and each entity has exactly one of them. Put the type in front, then a colon, "
            "then the entity in the words of the text. List the entities in the order in which they come up, with "
            "semicolons between them, and say none when there is nothing to list.",
            "Go through the text and ask at each word whether it belongs to a name, a date, a time, a sum of money, a "
            "measure or a number. If it does, take all words that belong together and give them their type. The "
            "answer is a list of type, colon and words, parted by semicolons, in the order of reading. Leave "
            "everything else out. If the list would be empty, write none.",
        ),
        "concise": (
            "List all names, dates and numbers in the text with their entity types.",
            "Find the named entities, dates and numbers in the text and give their types.",
            "Extract all entities of the text with their types.",
            "Label the names, times and amounts in this passage.",
            "Which entities are mentioned, and what kind is each of them?",
            "Tag every entity in the following text.",
            "Write down each named or numeric entity after its type.",
            "Recognise the entities of the text, values included.",
        ),
    },
    "nyt": {
        "detailed": (
            "Read the news text and find every pair of entities between which it states one of the listed relations. "
            "Write each finding as the relation, a colon, the entity that the relation starts from, a vertical bar "
            "and the entity that it leads to, both exactly as they stand in the text, and separate findings by "
            "semicolons. Report only what the text says. If it states no relation, write none.",
            "Find the facts about people, companies and places that this news text states. A fact links two entities "
            "by one of the listed relations. Give the relation first, then a colon, then the entity that it belongs "
            "to, a vertical bar, and the other entity. Copy both entities from the text. Put a semicolon between two "
            "facts. Facts that you merely know and that the text does not tell are to be left out. Write none if "
            "there is no fact.",
            "Consider every pair of entities in the text. Does one of the listed relations hold between them, "
            "according to the text itself? If so, write the relation, a colon, the first entity, a vertical bar and "
            "the second entity; mind the direction, since a country contains a city and not the other way round. "
            "Pairs may share an entity. Join the findings by semicolons, and answer none if no relation is stated.",
            "An archive wants to know who is linked to what in its old articles. Read the text and report each link "
            "as relation: head | tail. The relation has to be one of the options, and head and tail have to be copied "
            "word by word. A sentence may hold several links, also between the same two entities. Separate them by "
            "semicolons. Where the text links nothing, the report is the word none.",
            "Extract triples from the text. A triple has a relation from the list, a head and a tail. For a person "
            "the relation may be the place of birth, the nationality or the company, for a place what it contains or "
            "which country it belongs to, and so on. Write the relation, a colon, the head, a vertical bar and the "
            "tail, and a semicolon before the next triple. Without a triple write none.",
            "Look at the entities of this article and at what is said about them. Note every statement that fits a "
            "listed relation, however briefly the text puts it. The form is relation, colon, the entity that the "
            "statement is about, vertical bar, the other entity. Use the words of the text for both. Part the notes "
            "by semicolons and write nothing besides them. If no statement fits, note none.",
            "Decide which of the listed relations this text expresses. For each of them name the two entities in the "
            "right order, the owner of the relation before the vertical bar and its value behind it, with the "
            "relation and a colon in front. The text must support what you write. List everything it supports, with "
            "semicolons in between, or write none if it supports nothing.",
            "Turn the text into relations. Every relation gets the form relation: head | tail, where the name of the "
            "relation is taken from the options and head and tail are pieces of the text. Do not guess and do not use "
            "knowledge from elsewhere. Several relations stand in one line with semicolons between them. If the text "
            "yields none of the listed relations, your answer is none.",
        ),
        "concise": (
            "Extract the relations between entities that the news text states.",
            "Find all stated relations between entities in the text.",
            "Which entities are related, and by which relation?",
            "List the relation triples of this news sentence.",
            "Extract every listed relation with its head and tail.",
            "Write the facts of the text as relation, head and tail.",
            "State how the entities of the article are linked.",
            "Name each relation that the text expresses and its two entities.",
        ),
    },
    "webnlg": {
        "detailed": (
            "Read the text and write down every fact in it as a relation between two entities. Name the relation in "
            "one to four words, put a colon after it, then the entity that the fact is about, a vertical bar and the "
            "entity or value that it is linked to, both exactly as they stand in the text. Separate facts by "
            "semicolons and add nothing that the text does not say.",
            "Take the text apart into single facts. A fact says something about one entity and connects it with "
            "another entity or with a value such as a number or a date. Write a short name for the connection, a "
            "colon, the entity that the fact is about, a vertical bar and the entity or value. Use the spelling of "
            "the text for both. Put semicolons between facts and leave no fact out.",
            "The text was written from a table of facts. Recover that table. Each of its lines has a relation of one "
            "to four words, the thing described, and what the relation says about it. Write a line as the relation, a "
            "colon, the thing, a vertical bar and the rest, with the words of the text, and part the lines by "
            "semicolons. Facts that do not follow from the text do not belong in the table.",
            "List what this text tells about the things it mentions. For every piece of information give a relation "
            "in a few plain words, then a colon, then the thing in question, then a vertical bar and the information "
            "itself. One sentence often tells several things at once; give each of them on its own. Separate them by "
            "semicolons, and copy names and values without changing them.",
            "Extract relation triples of any kind from the text. There is no list of allowed relations: choose a "
            "clear name of at most four words, such as birth place or leader. Write the name, a colon, the subject, a "
            "vertical bar and the object. Subject and object are copied from the text. Triples are separated by "
            "semicolons. Take every triple that the text states and no other.",
            "A knowledge graph is to be built from this text. Its nodes are the entities and values of the text, and "
            "its edges are the facts. Describe each edge by a short relation name, a colon, the node where it starts, "
            "a vertical bar and the node where it ends. Name nodes exactly as in the text. Put a semicolon after "
            "every edge but the last one, and do not invent edges.",
            "Read the text sentence by sentence and put down each statement in the form relation: subject | value. "
            "The relation is your own short wording, the subject is the entity that the statement is about, and the "
            "value is whatever is said of it. Keep the spelling of names, dates and numbers. Join the statements by "
            "semicolons and stop when all of them are put down.",
            "Which facts does the text contain? Answer with a list in which every fact has three parts: what kind of "
            "fact it is, in one to four words and with a colon behind it, the entity to which it belongs, and after a "
            "vertical bar the entity or value that completes it. Both come from the text unchanged. Semicolons part "
            "the facts. Add neither opinions nor knowledge of your own.",
        ),
        "concise": (
            "Extract all facts from the text as relations between two entities.",
            "List the facts of the text as relation, subject and value.",
            "Extract every relation that the text states.",
            "Write down all facts that this text contains.",
            "Which entities and values does the text connect, and how?",
            "Turn the text into relation triples.",
            "State each fact of the passage as a short relation.",
            "Recover the facts from which this text was written.",
        ),
    },
    "scierc": {
        "detailed": (
            "Read the sentence from a scientific abstract. First find every scientific term in it and decide whether "
            "it is a task, a method, a material, a metric, a generic term or another term. Then decide which of the "
            "listed relations hold between these terms. Write each term as its type, a colon and its words, then each "
            "relation as its name, a colon and the two terms with a vertical bar between them, all separated by "
            "semicolons. If there is no term, write none.",
            "Analyse this sentence of a scientific paper. Collect its terms, each with one type: task, method, "
            "material, metric, generic or other term. Then collect the relations between these terms, using only the "
            "listed names, such as used-for or part-of. A term is written as type, colon, words; a relation as name, "
            "colon, first term, vertical bar, second term. Terms come first, and semicolons part all entries. Answer "
            "none if there is no term.",
            "Work in two steps. First, find all expressions of the sentence that name something scientific, be it a "
            "problem, an algorithm, a data set, a measure, or a general word such as approach that stands for one of "
            "them, and give their types. Second, say which listed relations connect them. Use the forms type: term "
            "and relation: first term | second term, joined by semicolons. A sentence without terms gets the answer "
            "none.",
            "Build the small knowledge graph of this sentence. Its nodes are scientific terms with a type from the "
            "options, its edges are relations from the options. Write each node as the type, a colon and the words of "
            "the sentence, then each edge as the relation, a colon, the term where it starts, a vertical bar and the "
            "term where it ends. Put semicolons between all of them, and write none if the graph is empty.",
            "A reader wants to search papers by what they use and what for. Give the terms of this sentence and their "
            "types, so that a method can be told from a task or a material, and the listed relations that the "
            "sentence states between them. Form of a term: type, colon, term. Form of a relation: relation, colon, "
            "first term, vertical bar, second term. All entries are separated by semicolons. If nothing is found, "
            "write none.",
            "Identify the technical terms of the sentence, decide the type of each one, and tell how they are "
            "related. Copy the terms word by word and leave articles out. Mind the direction of a relation: the "
            "method that is used comes before the task that it is used for, the part before the whole. List the terms "
            "as type: term, afterwards the relations as relation: term | term, with semicolons in between, or write "
            "none.",
            "Read the sentence as an expert of the field would. Which of its words are scientific terms, and is each "
            "of them a task, a method, a material, a metric, generic, or another term? Which of these terms does the "
            "sentence compare, join, evaluate, or describe by each other? Give the terms with their types and a "
            "colon, then the relations with both terms and a vertical bar, all parted by semicolons. No term means "
            "none.",
            "Extract terms and relations from a sentence about computer science. Each term needs a type from the "
            "options and each relation a name from the options. Relations hold only between terms that you have "
            "listed. Write type: term for the former and relation: first term | second term for the latter, one after "
            "the other with semicolons, in the words of the sentence. Where there is nothing to extract, the answer "
            "is none.",
        ),
        "concise": (
            "Extract the scientific terms and the relations between them from the sentence.",
            "Find the scientific terms and say how they are related.",
            "List the terms of the sentence with types, then their relations.",
            "Which technical terms occur, and which relations hold between them?",
            "Extract tasks, methods and other terms with their relations.",
            "Label the scientific terms and link them.",
            "Write down terms and relations of this abstract sentence.",
            "Identify each term, its type and its relations to other terms.",
        ),
    },
    "sst2": {
        "detailed": (
            "Read this piece of a movie review and decide how its author feels about the movie. Judge the text as a "
            "whole, with its irony and its negations, and not single words in it. Answer positive if the author "
            "approves, and negative if the author disapproves. Choose one of the two options even where the judgement "
            "is mild, and write nothing but that option.",
            "Below is a sentence or a phrase from a film review. Find out whether it speaks for the film or against "
            "it. Words of praise may be meant ironically, and a harsh word may belong to the plot and not to the "
            "judgement, so look at what the writer means. The answer is one word, positive for praise and negative "
            "for blame, and there is no third option.",
            "A critic wrote the following lines about a movie. Would the critic recommend it? Answer positive if the "
            "lines sound like a recommendation and negative if they sound like a warning. Where praise and blame are "
            "mixed, follow the side that weighs more. Give the one word only, without an explanation, without "
            "punctuation and without repeating the lines.",
            "Determine the sentiment of this text about a film. Pay attention to words that turn a meaning round, "
            "such as not, hardly or without, and to comparisons with better or worse films. If the overall feeling of "
            "the writer is favourable, the answer is positive, otherwise it is negative. Write exactly one of these "
            "two words and nothing after it.",
            "Imagine that you sort letters from cinema visitors into two trays, one for those who liked what they saw "
            "and one for those who did not. Read this piece of such a letter and name its tray: positive or negative. "
            "Short pieces may seem neutral at first; choose the tray to which the tone belongs all the same. Answer "
            "with the name of the tray.",
            "Judge the attitude of this movie review. The attitude is positive when the writer enjoyed, admired or "
            "defends the film, its actors, its pictures or its story, and negative when the writer was bored, annoyed "
            "or disappointed by them. Do not judge the events that the film shows. Answer with one of the two words.",
            "The text is taken from a review on a film website. Decide which of two ratings went with it, a good one "
            "or a bad one. Weigh the whole statement: a sentence can begin with a concession and end with the real "
            "opinion. For a good rating write positive, for a bad one write negative. Nothing else may stand in your "
            "answer.",
            "Read the following opinion and say whether it is in favour of the movie. Favourable opinions are "
            "labelled positive and unfavourable ones negative. The label depends on the author's view and not on "
            "yours, and also not on how well the text is written. Use one label, spelled as here, even if the text is "
            "only a fragment.",
        ),
        "concise": (
            "Classify the sentiment of this movie review as positive or negative.",
            "Is this movie review positive or negative?",
            "Say whether the writer likes the film.",
            "Decide on the sentiment of the review: positive or negative.",
            "Label this opinion about a movie as positive or negative.",
            "Tell the feeling that the text expresses towards the film.",
            "Does the critic praise or blame the movie?",
            "Give the sentiment of the following film review.",
        ),
    },
    "agnews": {
        "detailed": (
            "Read the title and the beginning of a news article and decide which section of a newspaper it belongs "
            "to. World is for politics and events between and inside countries, Sports for matches, athletes and "
            "teams, Business for companies, markets and the economy, and Sci/Tech for science, computers and the "
            "internet. Choose the one section that fits best and write nothing but its name.",
            "Assign this news item to one of four sections. World takes what happens between states, in parliaments, "
            "in wars and disasters. Sports takes games, players and clubs. Business takes firms, prices, jobs and "
            "trade. Sci/Tech takes research, space, medicine, software and devices. If an item touches two sections, "
            "take the one that its main event belongs to, and answer with the name of the section alone.",
            "You sort the reports of a news agency. Read the headline and the first lines and decide who should get "
            "the report: the desk for World, for Sports, for Business or for Sci/Tech. A report about the earnings of "
            "a software firm goes to Business, one about its new program to Sci/Tech. Write the name of the desk, as "
            "it is spelled here, and no further word.",
            "What is this article mainly about? There are four possible answers. World means politics, conflicts and "
            "other events of public life anywhere on earth; Sports means competitions and those who take part in "
            "them; Business means the economy and the stock exchange; Sci/Tech means science and technology. Choose "
            "exactly one and write it down without any explanation.",
            "Classify the following news text by its topic. Look for the event that the text reports and not for "
            "single names in it, because a president may open the games and a company may own a team. The classes are "
            "World, Sports, Business and Sci/Tech. Every text belongs to one of them. Your answer is the name of that "
            "class.",
            "A newspaper prints its articles on four kinds of pages, called World, Sports, Business and Sci/Tech. On "
            "which of them would a reader look for this article? Think of what the reader wants to know: the state of "
            "the world, the result of a match, the course of a share, or the news from laboratories and computers. "
            "Name the page and add nothing.",
            "Give the category of this news report. Matches, records and transfers are Sports. Mergers, oil prices, "
            "markets and employment are Business. Discoveries, the internet, games consoles and missions into space "
            "are Sci/Tech. Elections, attacks, treaties and trials are World. Decide by the report as a whole, choose "
            "the best category if several are possible, and reply with its name only.",
            "The text consists of the title of a press report and the sentence that follows it. Determine the subject "
            "area of the report. Four areas exist, namely World, Sports, Business and Sci/Tech, and each report has "
            "one of them. The place where something happened does not make it World, and a sum of money does not make "
            "it Business. Answer with the area.",
        ),
        "concise": (
            "Choose the topic that fits this news text.",
            "Which section does this news text belong to?",
            "Classify the article as World, Sports, Business or Sci/Tech.",
            "Name the topic of the following news report.",
            "Sort this news item into its category.",
            "What is the subject of this article?",
            "Say which of the four topics, World, Sports, Business or Sci/Tech, the text is about.",
            "Give the section in which this report is printed.",
        ),
    },
    "lap14": {
        "detailed": (
            "Read the review of a laptop and find every aspect of the product that is judged, such as its screen, "
            "battery, price or service. For each aspect find the words that express the opinion and decide whether "
            "they are positive, negative or neutral. Write each finding as the sentiment, a colon, the aspect, a "
            "vertical bar and the opinion words, exactly as they stand in the text, and separate findings by "
            "semicolons. If nothing is judged, write none.",
            "A customer wrote about a laptop. Find out which of its features the customer judges, in which words, and "
            "whether the judgement is positive, negative or neutral. Features are parts, programs, services and "
            "properties such as weight or price. Write the sentiment, a colon, the feature, a vertical bar and the "
            "judging words, all as they stand in the text. Put semicolons between findings. If the text judges "
            "nothing, write none.",
            "Extract the opinions from this laptop review. Every opinion has three parts: the aspect that is spoken "
            "of, the words that value it, and the sentiment of these words. Give them in the form sentiment: aspect | "
            "opinion words. One aspect may have several opinions and one opinion word may serve several aspects; "
            "write each pair on its own, with semicolons between the pairs, and none if there is no opinion.",
            "The maker of a computer wants to know what buyers like and dislike. Go through this sentence of a review "
            "and note each aspect with the words that express the opinion on it. Begin the note with positive, "
            "negative or neutral and a colon, then the aspect, a vertical bar, and the opinion words. Copy from the "
            "text and do not add aspects that are only implied. Part the notes by semicolons. Where the sentence "
            "holds no opinion at all, the note consists of the word none and of nothing else.",
            "Read the sentence about a notebook computer and look for words of praise and blame. For each of them "
            "find the thing that it refers to: keyboard, speed, support, operating system or whatever the text names. "
            "The answer lists sentiment, colon, thing, vertical bar, word of praise or blame, in the order of the "
            "text and parted by semicolons. Mere facts without a judgement are left out. An empty list is written as "
            "none.",
            "Determine the aspect sentiments of the review. An aspect is a word or phrase for something about the "
            "laptop, an opinion is the word or phrase by which the author rates it, and the sentiment is positive, "
            "negative, or neutral where the rating is neither. Each triple is written as sentiment: aspect | opinion, "
            "exact words on both sides of the bar, with a semicolon between triples. Write none for a review without "
            "triples.",
            "Which sides of the laptop does the author speak well of, and which not? Report them one by one. Begin "
            "with the sentiment (positive, negative or neutral) and a colon, name the side in the words of the "
            "author, and give behind a vertical bar the words that show the opinion. Negations belong to the opinion "
            "if they stand next to it. Separate the reports by semicolons, and answer none if the author rates "
            "nothing.",
            "List all triples of sentiment, aspect and opinion words that this customer review contains. Take aspect "
            "and opinion unchanged from the sentence and keep them as short as the meaning allows. The sentiment is "
            "one of positive, negative and neutral, and it is the author's view of that aspect alone, not of the "
            "whole machine. Form: sentiment: aspect | opinion words, joined by semicolons. If there is no triple, "
            "write none.",
        ),
        "concise": (
            "Extract aspect, opinion words and sentiment from the laptop review.",
            "Find the judged aspects of the laptop, with opinion and sentiment.",
            "List sentiment, aspect and opinion words of the review.",
            "Which parts of the laptop are praised or blamed, and how?",
            "Extract the opinions on each laptop aspect.",
            "Name every aspect, its opinion words and its sentiment.",
            "Write the aspect sentiments of this computer review.",
            "What does the customer think of which feature?",
        ),
    },
    "rest14": {
        "detailed": (
            "Read the review of a restaurant and find every aspect of the visit that is judged, such as a dish, the "
            "staff, the room or the bill. For each aspect find the words that express the opinion and decide whether "
            "they are positive, negative or neutral. Write each finding as the sentiment, a colon, the aspect, a "
            "vertical bar and the opinion words, exactly as they stand in the text, and separate findings by "
            "semicolons. If nothing is judged, write none.",
            "A guest wrote about a restaurant. Find out what the guest judges, in which words, and whether the "
            "judgement is positive, negative or neutral. It may be a dish, a drink, a waiter, the atmosphere, the "
            "place or the price. Write the sentiment, a colon, the aspect, a vertical bar and the judging words, all "
            "as they stand in the text. Put semicolons between findings. If the text judges nothing, write none.",
            "Extract the opinions from this restaurant review. Every opinion has three parts: the aspect that is "
            "spoken of, the words that value it, and the sentiment of these words. Give them in the form sentiment: "
            "aspect | opinion words. One aspect may have several opinions and one opinion word may serve several "
            "aspects; write each pair on its own, with semicolons between the pairs, and none if there is no opinion.",
            "The owner of a restaurant wants to know what the guests like and dislike. Go through this sentence of a "
            "review and note each aspect with the words that express the opinion on it. Begin the note with positive, "
            "negative or neutral and a colon, then the aspect, a vertical bar, and the opinion words. Copy from the "
            "text and do not add aspects that are only implied. Part the notes by semicolons. Without an opinion note "
            "none.",
            "Read the sentence about an evening out and look for words of praise and blame. For each of them find "
            "what it refers to: the pasta, the wine list, the service, the view or whatever the text names. The "
            "answer lists sentiment, colon, aspect, vertical bar, word of praise or blame, in the order of the text "
            "and parted by semicolons. Mere facts without a judgement are left out. An empty list is written as none.",
            "Determine the aspect sentiments of the review. An aspect is a word or phrase for something that the "
            "restaurant offers, an opinion is the word or phrase by which the author rates it, and the sentiment is "
            "positive, negative, or neutral where the rating is neither. Each triple is written as sentiment: aspect "
            "| opinion, exact words on both sides of the bar, with a semicolon between triples. Write none for a "
            "review without triples.",
            "What did the author enjoy in this restaurant, and what not? Report it point by point. Begin with the "
            "sentiment (positive, negative or neutral) and a colon, name the food, person or thing in the words of "
            "the author, and give behind a vertical bar the words that show the opinion. Negations belong to the "
            "opinion if they stand next to it. Separate the reports by semicolons, and answer none if the author "
            "rates nothing.",
            "List all triples of sentiment, aspect and opinion words that this guest review contains. Take aspect and "
            "opinion unchanged from the sentence and keep them as short as the meaning allows. The sentiment is one "
            "of positive, negative and neutral, and it is the author's view of that aspect alone, not of the whole "
            "visit. Form: sentiment: aspect | opinion words, joined by semicolons. If there is no triple, write none.",
        ),
        "concise": (
            "Extract aspect, opinion words and sentiment from the restaurant review.",
            "Find the judged aspects of the restaurant, with opinion and sentiment.",
            "List sentiment, aspect and opinion words of the review.",
            "Which dishes and services are praised or blamed, and how?",
            "Extract the opinions on each aspect of the visit.",
            "Name every aspect, its opinion words and its sentiment.",
            "Write the aspect sentiments of this restaurant review.",
            "What does the guest think of food, staff and place?",
        ),
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
