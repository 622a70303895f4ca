"""The command line: what a person or a script asks of a data directory or of a running daemon."""
