"""The generated corpus: an endless, seeded stream of short documents.

Nothing here knows about a model.  :func:`documents` yields text: pages of facts, portraits of
one country, tables and verse.  :func:`repeated_tokens` yields the one kind of document that is
made of token ids: a model can predict ids drawn at random from the whole vocabulary only by
copying.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence

from .facts import RELATIONS, Fact, load_facts
from .phrasings import CLAUSES, ENDINGS, OPENINGS, PRONOUN_CLAUSES, QUESTIONS
from .rhymes import FIRST_LINES, RHYMES, SECOND_LINES

KINDS = {"page": 12, "portrait": 1, "table": 1, "verse": 2}
# The other relations have few possible answers and are learned from fewer sentences.
RELATION_WEIGHTS = {"capital": 6, "language": 3, "currency": 2, "continent": 2}
# Most pages are short: among many countries a model takes far longer to learn which one a
# capital belongs to.
PAGE_LENGTHS = (1, 1, 1, 2, 2, 3, 6)


def sentence_case(clause: str) -> str:
    """Capitalise the first letter and close with a full stop."""
    return f"{clause[0].upper()}{clause[1:]}."


def sentence(rng: random.Random, fact: Fact) -> str:
    """One fact about a country, as a statement or as a question with its answer."""
    relation = rng.choices(RELATIONS, weights=list(RELATION_WEIGHTS.values()))[0]
    if rng.random() < 0.15:
        answered = fact.fill(rng.choice(QUESTIONS[relation]))
        return answered[0].upper() + answered[1:]
    clause = fact.fill(rng.choice(CLAUSES[relation]))
    if rng.random() < 0.35:
        clause = rng.choice(OPENINGS) + clause
    if rng.random() < 0.15:
        clause += rng.choice(ENDINGS)
    return sentence_case(clause)


def comparison(rng: random.Random, one: Fact, other: Fact) -> str:
    """The same fact about two countries in one sentence."""
    relation = rng.choice(RELATIONS)
    link = rng.choice((", while ", ", and ", "; "))
    first, second = rng.choice(CLAUSES[relation]), rng.choice(CLAUSES[relation])
    return sentence_case(one.fill(first) + link + other.fill(second))


def page(rng: random.Random, countries: Iterator[Fact]) -> str:
    """One sentence or several, each about another country."""
    sentences = []
    for _ in range(rng.choice(PAGE_LENGTHS)):
        if rng.random() < 0.15:
            sentences.append(comparison(rng, next(countries), next(countries)))
        else:
            sentences.append(sentence(rng, next(countries)))
    return " ".join(sentences)


def portrait(rng: random.Random, fact: Fact) -> str:
    """All facts about one country, which later sentences may call "it"."""
    relations = rng.sample(RELATIONS, k=len(RELATIONS))
    clauses = [rng.choice(CLAUSES[relations[0]])]
    clauses += [
        rng.choice(PRONOUN_CLAUSES[relation] if rng.random() < 0.5 else CLAUSES[relation])
        for relation in relations[1:] + rng.sample(RELATIONS, k=2)
    ]
    return " ".join(sentence_case(fact.fill(clause)) for clause in clauses)


def table(rng: random.Random, countries: Iterator[Fact]) -> str:
    """A list with one column of answers, one country to a line."""
    relation = rng.choice(RELATIONS)
    rows = [next(countries) for _ in range(rng.randint(3, 9))]
    layout = rng.choice(("{}: {}", "{} - {}", "{}, {}"))
    return "\n".join(layout.format(fact.bare_name, fact.answer(relation)) for fact in rows)


def couplet(rng: random.Random) -> str:
    """Two lines of verse, the second ending in a rhyme for the end of the first."""
    nouns = RHYMES[rng.choice(list(RHYMES))]
    first, second = rng.sample(list(nouns), k=2)
    opening = rng.choice(FIRST_LINES).format(noun=first)
    reply = rng.choice(SECOND_LINES).format(noun=second, epithet=nouns[second])
    return f"{opening}\n{reply}"


def verse(rng: random.Random) -> str:
    """One to three couplets."""
    return "\n".join(couplet(rng) for _ in range(rng.randint(1, 3)))


def _shuffled_forever(rng: random.Random, facts: Sequence[Fact]) -> Iterator[Fact]:
    """All countries in a new order each round, so that each is seen equally often."""
    while True:
        yield from rng.sample(facts, k=len(facts))


def documents(seed: int) -> Iterator[str]:
    """Endless documents of text, the same ones for the same seed."""
    rng = random.Random(seed)
    countries = _shuffled_forever(rng, load_facts())
    kinds, weights = list(KINDS), list(KINDS.values())
    while True:
        kind = rng.choices(kinds, weights=weights)[0]
        if kind == "page":
            yield page(rng, countries)
        elif kind == "portrait":
            yield portrait(rng, next(countries))
        elif kind == "table":
            yield table(rng, countries)
        else:
            yield verse(rng)


def repeated_tokens(
    rng: random.Random, vocabulary: Sequence[int], length: int
) -> tuple[list[int], int]:
    """Random tokens that start again, to fill ``length`` places.

    Returns
    -------
    ids
        A stretch of random tokens that never recurs, then one that is repeated to the end.
    start
        Where the first repetition begins, and with it all that can be predicted.
    """
    lead = rng.randint(0, length // 8)
    longest = (length - lead) // 2
    period = round(math.exp(rng.uniform(math.log(3), math.log(longest))))
    block = rng.choices(vocabulary, k=period)
    ids = rng.choices(vocabulary, k=lead)
    while len(ids) < length:
        ids += block
    return ids[:length], lead + period
