"""The connection: name, port, certificate, TLS, addresses, time, and whether the proxy reaches the service."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from statistics import median
from typing import Final

from service.doctor.catalogue import Finding, counted, shown
from service.doctor.evidence import Evidence
from service.doctor.reply import Certificate, Reply, WireError
from service.doctor.rules.reading import GATEWAY, counts, found, is_own, issuer_of

#: By OpenSSL's X509_V_ERR_… code for the chain.
_CERTIFICATES: Final = {
    9: "certificate-expired",
    10: "certificate-expired",
    18: "certificate-self-signed",
    62: "certificate-wrong-name",
    64: "certificate-wrong-name",
}
_BROKEN: Final = {
    "dns": "dns-fails",
    "refused": "connection-refused",
    "unroutable": "connection-refused",
    "timeout": "too-slow",
    "old-tls": "tls-too-old",
    "client-certificate": "refused-by-proxy",
}
#: A certificate that is renewed in time is valid for more days than these, or for a third of its lifetime.
_DAYS_LEFT: Final = 21
_DAY_S: Final = 86400
#: Clients give up after a few seconds (openid-client: 3.5).
_SLOW_S: Final = 2.5
#: Requests that may have no answer.
_MAY_FAIL: Final = frozenset({"old-tls", "http", "handshake", "plain-port", "flow", "inside"})


def connection(e: Evidence) -> Iterator[Finding]:
    """Name, port, certificate and TLS are as relying parties need them."""
    error = e.error("discovery")
    if error is None:
        return
    if error.kind == "certificate":
        yield _certificate(e, error)
        return
    if error.kind == "client-certificate":
        yield found(e, "refused-by-proxy", f"{error.detail}, at every address", variant="certificate")
        return
    if error.kind == "closed" and e.options.origin.scheme == "https":
        seen = f"{error.detail}, at every address: the proxy ends the connection when it has read the request"
        yield found(e, "refused-by-proxy", seen, variant="closed")
        return
    plain = e.reply("plain-port")
    if plain is not None:
        seen = f"plain HTTP on the port of https, without TLS ({plain.status})"
        yield found(e, "not-http", seen, variant="plain")
    elif error.kind == "tls" and e.reply("old-tls") is not None:
        yield found(e, "tls-too-old", error.detail)
    else:
        yield found(e, _BROKEN.get(error.kind, "not-http"), error.detail)


def _certificate(e: Evidence, error: WireError) -> Finding:
    id_ = _CERTIFICATES.get(error.code, "certificate-incomplete-chain")
    told = _told(e)
    if told is None:
        return found(e, id_, error.detail)
    variant, more = "", ""
    if id_ == "certificate-wrong-name":
        variant = "" if told.names else "no-san"
        more = (
            f"for {', '.join(told.names[:4])}"
            if told.names
            else f"no subjectAltName, only the subject {told.subject}"
        )
    elif id_ == "certificate-expired":
        more = f"valid from {_day(told.begins)} to {_day(told.ends)}"
    elif error.code in {19, 20, 21}:
        variant = "unknown" if error.code == 19 else ""
    return found(e, id_, f"{error.detail}: {more}" if more else error.detail, variant=variant)


def _told(e: Evidence) -> Certificate | None:
    handshake = e.reply("handshake")
    return None if handshake is None else handshake.certificate


def _day(at: int) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}"


def certificate_ends(e: Evidence) -> Iterator[Finding]:
    """The certificate is renewed before it expires."""
    handshake = e.reply("handshake")
    told = None if handshake is None else handshake.certificate
    if handshake is None or told is None or isinstance(e.answers.get("discovery"), WireError):
        return
    left_s = told.ends - handshake.received_at
    if 0 < left_s < min(_DAYS_LEFT * _DAY_S, (told.ends - told.begins) / 3):
        left = counted(int(left_s // _DAY_S), "day")
        yield found(e, "certificate-ends-soon", f"it ends on {_day(told.ends)}, in {left}")


def old_tls(e: Evidence) -> Iterator[Finding]:
    """TLS 1.0 and 1.1 are refused (RFC 8996)."""
    reply = e.reply("old-tls")
    if reply is not None and e.error("discovery") is None:
        yield found(e, "tls-too-old", f"{reply.tls} is spoken too")


def addresses(e: Evidence) -> Iterator[Finding]:
    """All addresses of the name lead to the same service. A wrong one is named only if another one is right."""
    told = {
        name.partition(" ")[2]: _said_at(answer)
        for name, answer in e.answers.items()
        if name.startswith("address ") and not (isinstance(answer, WireError) and answer.kind == "unroutable")
    }
    if len(set(told.values())) < 2:
        return
    good = [address for address, seen in told.items() if seen == e.options.url]
    seen = "; ".join(f"{address}: {shown(text, 70)}" for address, text in told.items())
    if not good:
        yield found(e, "addresses-differ", seen, variant="unknown")
        return
    bad = next(address for address in told if address not in good)
    yield found(e, "addresses-differ", seen, variant="bad", address=bad, record="AAAA" if ":" in bad else "A")


def _said_at(answer: Reply | WireError) -> str:
    if isinstance(answer, WireError):
        return answer.detail
    return issuer_of(answer) or f"{answer.status} {answer.media_type}"


def gateway(e: Evidence) -> Iterator[Finding]:
    """The proxy always reaches the service."""
    replies = {
        name: answer
        for name, answer in e.answers.items()
        if isinstance(answer, Reply) and not name.endswith("-inside") and name not in _MAY_FAIL
    }
    bad = {name: reply for name, reply in replies.items() if reply.status in GATEWAY and not is_own(reply)}
    discovery = e.reply("discovery")
    if discovery is not None and discovery.status in GATEWAY and not is_own(discovery):
        variant = "" if e.options.inside is None else "upstream" if _lives(e) else "down"
        yield found(
            e, "bad-gateway", f"{discovery.status} at the discovery address{_inside(e)}", variant=variant
        )
        return
    # Some repetitions of the same request work and some do not: so it does not depend on the request.
    for group in sorted({_group(name) for name in replies}):
        of_group = {name for name in replies if _group(name) == group}
        if of_group & bad.keys() and (of_group - bad.keys() or group == "again"):
            status = min(reply.status for reply in bad.values())
            seen = f"{status} to {counts(len(bad), len(replies))} questions: one of several servers is not reached"
            yield found(e, "bad-gateway", seen, variant="some")
            return


def _group(name: str) -> str:
    """The name of the request, without the number of its repetition."""
    group, _, number = name.rpartition("-")
    return group if number.isdecimal() else name


def _lives(e: Evidence) -> bool:
    return e.reply("readyz-inside") is not None


def _inside(e: Evidence) -> str:
    if e.options.inside is None:
        return ""
    error = e.error("readyz-inside")
    return "; inside it answers" if error is None else f"; inside it does not answer either ({error.detail})"


def unanswered(e: Evidence) -> Iterator[Finding]:
    """Every request was answered; silence is not health."""
    if e.error("discovery") is not None:
        return
    asked = {name: answer for name, answer in e.answers.items() if not name.startswith("address ")}
    silent = {
        name: answer
        for name, answer in asked.items()
        if isinstance(answer, WireError) and name not in _MAY_FAIL and not name.endswith("-inside")
    }
    took = [answer.took_s for answer in asked.values() if isinstance(answer, Reply) and answer.took_s]
    usual = median(took) if took else 0.0
    late = {name for name, answer in silent.items() if answer.kind == "timeout"}
    names = ", ".join(sorted({_group(name) for name in silent})[:6])
    if late:
        seen = f"{counts(len(late), len(asked))} questions had no answer after {e.lasted_s:.0f} s"
        yield found(e, "too-slow", f"{seen}; the others took {usual:.1f} s each")
    elif usual >= _SLOW_S:
        yield found(e, "answers-slow", f"half of {len(took)} answers took longer than {usual:.1f} s")
    broken = {name: answer for name, answer in silent.items() if name not in late}
    if broken:
        first = next(iter(broken.values()))
        seen = f"{counts(len(broken), len(asked))} questions had no answer: {first.detail}"
        yield found(e, "not-answered", f"{seen}; {names}")
