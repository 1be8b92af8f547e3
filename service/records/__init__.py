"""What is stored, as frozen values: each knows its way to a row and back, by the names of its members."""
