"""The condition program: what a definition keeps for each profile, and how an event changes it."""
