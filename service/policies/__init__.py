"""Policies: what a token for each audience holds, who may have one, and by which way.

values     a policy, and all of them, as frozen values
lines      on which line of a TOML file each key stands
members    the table of members: what each may be, for the parser and for editors
reading    the file's text in, the policies out, or every fault with table and line
cases      what the file itself says that must come of it
deciding   the one function that says what a token holds, or which rule refuses it
schema     the same table as a JSON Schema; `policies.schema.json` is what it makes

Nothing here knows HTTP, SQL, the environment or a file: text and values come in, values go out.
"""
