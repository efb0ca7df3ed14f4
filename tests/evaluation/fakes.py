"""Stands in for what an encoder is made of."""

from tests.methods.fakes import CONTEXT


class Letters:
    """A token a letter."""

    pad_id, context_length, vocab_size, fingerprint = 0, CONTEXT, 300, "letters"

    def __call__(self, texts: list[str]) -> list[list[int]]:
        return [[1, *(3 + ord(letter) % 200 for letter in text[: CONTEXT - 2]), 2] for text in texts]
