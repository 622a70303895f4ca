"""The HTTP APIs as a client meets them: the whole daemon, a real socket, a simulated clock."""
