"""Packing, prefixes, vision features and memory between prepared items and the network."""
