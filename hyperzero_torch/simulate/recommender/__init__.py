"""A simulated recommender: users, a feed, sessions, and an event log."""
