"""The protocol's rules as pure functions: no HTTP, SQL, environment or clock, and no randomness except `handles`."""
