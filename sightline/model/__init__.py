"""The Qwen3-VL network in plain PyTorch. Takes tensors, knows no item."""
