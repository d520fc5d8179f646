"""Vectors (Lance) and state (SQLite) on disk; numpy as the oracle. Knows no model."""
