"""Why a relying party reports "invalid issuer": tests a deployment from outside, through its public address.

Owns: the requests, the possible findings, and their fixes. Never touches: the store, the keys, the application;
it is given a URL, and knows no more than any client of it.

    findings/      the possible findings: their words, cases and fixes, as data
    catalogue      these files, read
    reply          an answer, and the server that sent it: values
    wire           one HTTP/1.1 request over one connection, bounded in time and size
    evidence       what the operator gave, and everything that came back
    asking         several requests at a time, outside and inside
    interview      which requests are sent
    sign_in        a whole sign-in
    rules/         evidence -> findings, the root cause first
    report         findings as a table, as JSON and as a page
    pages          the documentation of the findings
"""
