"""What every language model that only decodes does with its blocks."""

from flax import linen as nn

from linearize.models.language import cached, head
from linearize.models.language.embedding import embedded
from linearize.types import Array, PyTree


class Causal(nn.Module):
    """Base of decoders whose ``run(tokens, cache)`` gives hidden states, and new keys and values.

    It has no fields of its own: ``vocabulary``, ``context``, ``width``, ``tied`` and ``dtype`` are
    theirs.
    """

    def setup(self) -> None:
        small = nn.initializers.normal(0.02)
        self.token_embedding = self.param("token_embedding", small, (self.vocabulary, self.width))
        if not self.tied:
            self.head = head.Head(self.vocabulary, self.dtype)

    def __call__(self, tokens: Array) -> Array:
        return self.run(tokens)[0]

    def embed(self, tokens: Array) -> Array:
        """Rows of the token embedding (B, S, D).

        Raises:
            ValueError: more tokens than the weights were made for, or none.
        """
        found = embedded(self.token_embedding, tokens)
        if tokens.shape[1] > self.context:
            raise ValueError(
                f"tokens are {tokens.shape}: longer than the context of {self.context}; cut them"
            )
        return found

    def logits(self, hidden: Array, words: Array | None = None) -> Array:
        """Of hidden states (..., D): (..., V) float32, or (..., C) of words (C,) alone."""
        if not self.tied:
            return self.head(hidden, words)
        return head.logits(hidden, self.token_embedding, words, self.dtype)

    def step(self, tokens: Array, cache: PyTree) -> tuple[Array, PyTree]:
        """Hidden states of the S tokens (B, S) after those of the cache, and the cache with them.

        There must be room for them: what is too much overwrites the last. Parameters and cache may
        be of blocks one by one (:func:`linearize.models.layers.unstack`) where the model's are
        stacked.
        """
        hidden, new = self.run(tokens, cache)
        return hidden, cached.grown(cache, new, hidden)
