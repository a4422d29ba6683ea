"""The tokenizer that the bundled models share: byte-level BPE trained on their corpus."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from .corpus import documents
from .facts import load_facts

BOS, EOS = "<|bos|>", "<|eos|>"


def _training_text(n_documents: int, seed: int) -> Iterator[str]:
    """Documents, then every name on its own, which is what makes names worth a token."""
    yield from islice(documents(seed), n_documents)
    for fact in load_facts():
        names = f" {fact.bare_name} {fact.capital} {fact.language} {fact.currency}"
        yield names * (n_documents // 100)


def train_tokenizer(vocab_size: int, n_documents: int = 20_000, seed: int = 0) -> Tokenizer:
    """A tokenizer that can encode any text and that begins each with ``<|bos|>``."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BOS, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_training_text(n_documents, seed), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A",
        pair=f"{BOS} $A $B",
        special_tokens=[(BOS, tokenizer.token_to_id(BOS))],
    )
    return tokenizer


def special_id(tokenizer: Tokenizer, token: str) -> int:
    """The id of one of the special tokens, which every tokenizer made here has."""
    number: int | None = tokenizer.token_to_id(token)
    if number is None:
        raise ValueError(f"The tokenizer has no token {token!r}.")
    return number


def ordinary_ids(tokenizer: Tokenizer) -> Sequence[int]:
    """Every token id except the special ones."""
    special = {tokenizer.token_to_id(BOS), tokenizer.token_to_id(EOS)}
    return [token for token in range(tokenizer.get_vocab_size()) if token not in special]
