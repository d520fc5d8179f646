"""What must hold when everything goes wrong: kills, power cuts, full disks, two writers, hostile files.

Each module has ``trials(number, seed) -> Tally``. pytest runs a short form of each; ``python -m tests.torture`` runs the
long form and prints one table.
"""
