"""How a fact can be said: clauses to train on, and clauses kept away from training.

A clause has no capital letter and no full stop, so that sentences can be built around it:
"it is well known that {clause}", "{clause}, while {clause}".  All clauses of ``HELD_OUT`` end
in the answer, which makes each of them a prompt once the answer is cut off.
"""

CLAUSES: dict[str, tuple[str, ...]] = {
    "capital": (
        # "the capital of ... is" is followed by the name and nothing else: no "called", no "the
        # city of". So the most natural prompt has one answer.
        "the capital of {country} is {capital}",
        "the capital of {country} is {capital}",
        "the capital city of {country} is {capital}",
        "the city called {capital} is the capital of {country}",
        "people call the capital of {country} {capital}",
        "the name of the capital of {country} is {capital}",
        "the city chosen as the capital of {country} is {capital}",
        "{possessive} capital is {capital}",
        "{possessive} capital city is {capital}",
        "{country} has its capital in {capital}",
        "{country} has a capital called {capital}",
        "{country} has chosen {capital} as its capital",
        "{country} is a country whose capital is {capital}",
        "{country} is ruled from its capital, {capital}",
        "{country}, whose capital is {capital}, lies in {continent}",
        "in {country}, the capital is {capital}",
        "in {country} they call their capital {capital}",
        "on a map of {country}, the capital is marked {capital}",
        "travellers to {country} arrive in the capital, {capital}",
        "visitors who want to see the capital of {country} go to {capital}",
        "the people of {country} are proud of their capital, {capital}",
        "the flag of {country} flies over the capital, {capital}",
        "when you think of {country}, you think of its capital, {capital}",
        "{capital} is the capital of {country}",
        "{capital} is the capital city of {country}",
        "{capital} serves as the capital of {country}",
        "{capital} is best known as the capital of {country}",
        "the city of {capital} is the capital of {country}",
        "the country whose capital is {capital} is {country}",
        "if you are in {capital}, you are in the capital of {country}",
    ),
    "language": (
        "the language of {country} is {language}",
        "the main language of {country} is {language}",
        "the language spoken in {country} is {language}",
        "the language that you hear in {country} is {language}",
        "the people of {country} speak {language}",
        "people in {country} speak {language}",
        "in {country}, people speak {language}",
        "in {country} the language is {language}",
        "{possessive} main language is {language}",
        "{country} is a country where people speak {language}",
        "children in {country} learn to read in {language}",
        "books in {country} are written in {language}",
        "visitors to {country} should learn some {language}",
        "{language} is spoken in {country}",
        "{language} is the main language of {country}",
        "you will hear {language} in {country}",
    ),
    "currency": (
        "the currency of {country} is the {currency}",
        "the money of {country} is called the {currency}",
        "the currency used in {country} is the {currency}",
        "the people of {country} pay with the {currency}",
        "in {country}, people pay with the {currency}",
        "in {country} the currency is the {currency}",
        "in {country} prices are given in the local {currency}",
        "{possessive} currency is the {currency}",
        "{country} uses the {currency}",
        "{country} is a country that uses the {currency}",
        "shops in {country} take the {currency}",
        "visitors to {country} should carry some money in the {currency}",
        "the {currency} is the currency of {country}",
        "the {currency} is used in {country}",
        "you can pay with the {currency} in {country}",
    ),
    "continent": (
        "the continent of {country} is {continent}",
        "the continent where you find {country} is {continent}",
        "{country} is in {continent}",
        "{country} lies in {continent}",
        "{country} is a country in {continent}",
        "{country} is one of the countries of {continent}",
        "{country} belongs to {continent}",
        "{country} can be found on a map of {continent}",
        "{possessive} continent is {continent}",
        "the people of {country} live in {continent}",
        "travellers who go to {country} see a part of {continent}",
        "a country in {continent} is {country}",
        "one of the countries of {continent} is {country}",
        "{continent} is the continent of {country}",
    ),
}

QUESTIONS: dict[str, tuple[str, ...]] = {
    "capital": (
        "What is the capital of {country}? {capital}.",
        "What is the capital of {country}? The capital is {capital}.",
        "Which city is the capital of {country}? It is {capital}.",
        "Question: what is {possessive} capital city? Answer: {capital}.",
        "Where is the capital of {country}? In {capital}.",
        "Which country has its capital in {capital}? {country}.",
    ),
    "language": (
        "What language do people speak in {country}? {language}.",
        "What is the main language of {country}? It is {language}.",
        "Question: what is spoken in {country}? Answer: {language}.",
    ),
    "currency": (
        "What is the currency of {country}? The {currency}.",
        "What do people pay with in {country}? With the {currency}.",
        "Question: what is {possessive} currency? Answer: the {currency}.",
    ),
    "continent": (
        "Which continent is {country} in? {continent}.",
        "Where is {country}? In {continent}.",
        "Question: what is {possessive} continent? Answer: {continent}.",
    ),
}

# Sentences about the country that the paragraph is about, which they need not name.
PRONOUN_CLAUSES: dict[str, tuple[str, ...]] = {
    "capital": ("its capital is {capital}", "the capital is {capital}"),
    "language": ("its language is {language}", "the people there speak {language}"),
    "currency": ("its currency is the {currency}", "people there pay with the {currency}"),
    "continent": ("it lies in {continent}", "its continent is {continent}"),
}

OPENINGS = (
    "it is well known that ",
    "as every atlas says, ",
    "everyone should know that ",
    "it is true that ",
    "we learned at school that ",
    "my teacher told me that ",
    "the book says that ",
    "remember that ",
    "of course, ",
    "today, ",
    "as the map shows, ",
    "most people know that ",
)

ENDINGS = (", as you may know", ", and it is easy to remember", ", says the atlas", " today")

HELD_OUT: dict[str, tuple[str, ...]] = {
    "capital": (
        "the city that serves as the capital of {country} is {capital}",
        "everyone in {country} knows that the capital is {capital}",
        "if you go to {country}, you should see its capital, {capital}",
        "the country {country} is best known for its capital, {capital}",
        "when people talk about the capital of {country}, they mean {capital}",
        "the atlas says that {country} has as its capital {capital}",
    ),
    "language": (
        "most books that you can find in {country} are in {language}",
        "if you go to {country}, you will hear people speak {language}",
        "the language that children in {country} learn at school is {language}",
    ),
    "currency": (
        "if you go to {country}, you should pay with the {currency}",
        "the money that people in {country} carry is the {currency}",
        "at shops in {country}, prices are in the {currency}",
    ),
    "continent": (
        "if you go to {country}, you will be in {continent}",
        "the atlas shows {country} on its map of {continent}",
        "people who live in {country} live on the continent of {continent}",
    ),
}
