"""One file a family of endpoints. A responder parses, calls, renders; it decides nothing."""
