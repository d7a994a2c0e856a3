"""ask / tell / recommend: one round of Algorithm 2 and what it needs."""
