"""Policies: the content of tokens for each audience, who may have one, and with which grant.

values     a policy, and all of them, as frozen values
lines      the line of each key in a TOML file
members    the table of members and their values, for the parser and for editors
reading    turns the file's text into policies, or reports every fault with table and line
cases      the test cases in the file
deciding   the one function that decides what a token contains, or which rule refuses it
schema     the same table as a JSON Schema, published as `policies.schema.json`

Nothing here uses HTTP, SQL, the environment or files: text and values come in, values go out.
"""
