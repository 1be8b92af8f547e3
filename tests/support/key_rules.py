"""What is never true of a ring of keys."""

from __future__ import annotations

from service.keys.ring import KeyRecords, Margins, role, with_role


def violations(keys: KeyRecords, now: int, margins: Margins) -> list[str]:
    """What docs/security.md promises of keys, and this ring breaks at this second; tests ask at every step.

    Exempt are an algorithm's first key, and one that took over from a revoked one.
    """
    found = []
    if len({key.kid for key in keys}) != len(keys):
        found.append("a kid is there twice")
    for alg in sorted({key.alg for key in keys}):
        of_alg = [key for key in keys if key.alg == alg]
        found += [
            f"{alg}: {count} keys are {wanted}"
            for wanted, count in (("active", len(with_role(keys, alg, "active", now))),)
            if count != 1
        ]
        if not with_role(keys, alg, "next", now):
            found.append(f"{alg}: no key is next")
        first = min(key.published_at for key in of_alg)
        in_need = {key.revoked_at for key in of_alg if key.revoked_at is not None}
        for key in of_alg:
            if key.signs_from is not None and key.published_at > first and key.signs_from not in in_need:
                early = key.signs_from - key.published_at < margins.lead_s
                if early and not (key.imported and key.retires_at == key.signs_from):
                    found.append(f"{key.kid} signs before verifiers know it")
            if role(key, now) != "gone" and key.retires_at is not None:
                least = key.retires_at + margins.longest_token_s + margins.linger_s
                if key.gone_at is None or key.gone_at < least:
                    found.append(f"{key.kid} goes before its tokens have ended")
            if role(key, now) != "gone" and key.sealed is None:
                found.append(f"{key.kid} has lost its private part")
    return found
