"""What happened: the append-only event log, its entries, and the projections kept beside it."""
