"""The endpoints, one file for each family. A responder parses, calls and renders, and decides nothing."""
