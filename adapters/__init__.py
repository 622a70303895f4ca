"""The world: HTTP in and out, destinations, exports, the command line."""
