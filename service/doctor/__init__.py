"""Why a relying party says "invalid issuer": the deployment, asked from outside through its public address.

Owns: what is asked, what may be wrong, and how it is fixed. Never touches: the store, the keys, the application;
it is given a URL, and knows no more than any client of it.

    findings.toml  what may be wrong: its words and its fixes, as data
    catalogue      that file, read
    wire           one HTTP/1.1 request over one connection, bounded in time and size
    evidence       what is asked, and what came back
    rules          evidence -> findings, the root cause first
    report         findings as a table, as JSON and as a page
"""
