"""Events in and answers out, over HTTP: the tracking API, the management API, the Profile API, the server."""
