"""Why a relying party says "invalid issuer": the deployment, asked from outside through its public address.

Owns: what is asked, what may be wrong, and how it is fixed. Never touches: the store, the keys, the application;
it is given a URL, and knows no more than any client of it.

    findings/      what may be wrong: its words, its cases and its fixes, as data
    catalogue      these files, read
    reply          what comes back, and from whom: values
    wire           one HTTP/1.1 request over one connection, bounded in time and size
    evidence       what the operator gave, and everything that came back
    asking         several questions at a time, outside and inside
    interview      which questions
    sign_in        a whole sign-in
    rules/         evidence -> findings, the root cause first
    report         findings as a table, as JSON and as a page
    pages          the documentation of the findings
"""
