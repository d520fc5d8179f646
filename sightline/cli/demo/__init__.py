"""Real files of every kind, questions about them, and one page with the answers."""
