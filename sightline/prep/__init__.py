"""An item becomes token ids, patches and positions. Arithmetic only: no model, no decoder."""
