"""Weights and tokenizer of the built-in models, as package data."""
