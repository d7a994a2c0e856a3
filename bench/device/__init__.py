"""CUDA without a card: a simulated card, and the counts that are taken on it."""
