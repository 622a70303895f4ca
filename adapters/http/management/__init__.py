"""The management API: spaces, sources, audiences, computed traits, destinations, regulations, tokens, audit."""
