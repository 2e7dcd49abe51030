"""Toxicity by negation: a language model that forgets how to write toxic text, and no more."""
