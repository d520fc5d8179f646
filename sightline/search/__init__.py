"""From paths to rows, from a query to hits. Sees models only through protocols."""
