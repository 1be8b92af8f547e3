"""The benchmark: ratios between things measured side by side in one run, because figures of two runs do not compare.

    python -m bench            the service compared with a bare Falcon answer, a file and the raw signature; writes results/
    python -m bench flows      every flow next to five other providers; a part of the run above
    python -m bench growth     each flow with 1,000 and with 1,000,000 sessions and grants, in one process
    python -m bench record     puts the newest results into docs/bench.md and the README
    python -m bench install    gets those providers, and measures nothing
    python -m bench workers    gunicorn's worker classes compared with each other, and what slow clients do to them;
                               --record puts the tables into the decision record too
    python -m bench profile    where the microseconds of each flow go, in one process and without a server

Everything listens on loopback, ends by its own process id, and runs for a bounded time. The environment sets how
long: BENCH_SECONDS (4) a case and round, BENCH_ROUNDS (3), BENCH_CALLS (2,000) a flow of the profile,
BENCH_FLOW_SECONDS (1) a flow of a provider and round, BENCH_FLOWS (800) codes a round; BENCH_QUIET_S (0),
how long to wait at most until the load average is below 0.5.

    machine    what it was measured on
    wrk        the load generator
    usage      CPU and memory of process trees, from /proc
    bare       a Falcon application with nothing in it
    servers    what is measured: gunicorns, granian, the nginx site, sessions to mint for
    signatures the raw signature rate
    starts     cold start, and memory after load
    ratios     the run itself: cases, rounds, targets
    flows      every flow next to other providers
    providers  how each of them is started
    clients    relying parties that ask for codes, exchanges and refreshes
    wire       their HTTP
    workers    the comparison of worker classes
    slow       clients that dawdle
    growth     the cost of each flow as databases grow
    profile    timing in process
    plots      drawings
    newest     the pages that show the newest results
    report     tables, and the two files of a run
"""
