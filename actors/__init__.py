"""What decides: definitions, identity, user and account actors, deliveries. Pure folds; no I/O."""
