"""The countries of the world and five facts about each, read from ``facts.json``.

Every row is ``[country, capital, language, currency, continent]``.  Where the world is less
tidy than a table, one answer is picked and kept: the official capital (Sucre, Pretoria,
Sri Jayawardenepura Kotte), one widely spoken language, the currency without its adjective
("dollar"), and the continent of the United Nations geoscheme (Cyprus and Turkey in Asia).
Names are spelled without accents so that they are easy to type into a prompt.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

FACTS = Path(__file__).with_name("facts.json")
RELATIONS = ("capital", "language", "currency", "continent")


@dataclass(frozen=True)
class Fact:
    """One country, named as in the middle of a sentence (``"the Netherlands"``)."""

    country: str
    capital: str
    language: str
    currency: str
    continent: str

    @property
    def possessive(self) -> str:
        """The country's name as an owner: ``"France's"``, ``"the Netherlands'"``."""
        return f"{self.country}'" if self.country.endswith("s") else f"{self.country}'s"

    @property
    def bare_name(self) -> str:
        """The country's name without its article, as in a table."""
        return self.country.removeprefix("the ")

    def answer(self, relation: str) -> str:
        """The value of one of :data:`RELATIONS`."""
        return str(getattr(self, relation))

    def fill(self, template: str) -> str:
        """Put this country and its facts into ``template``."""
        return template.format(possessive=self.possessive, bare_name=self.bare_name, **asdict(self))


def load_facts() -> list[Fact]:
    """All countries, in the order of the file."""
    return [Fact(*row) for row in json.loads(FACTS.read_text(encoding="utf-8"))]
