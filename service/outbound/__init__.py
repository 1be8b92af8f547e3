"""Requests of this service to others: the only way out of the process.

`fetcher.py` is what others use, `addresses.py` decides where a request may go, `wire.py` connects within the bounds,
`reading.py` parses the settings.
"""
