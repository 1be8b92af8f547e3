"""Certificates of one key as an operator's folder holds them: the right one, and those that are put in its place."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class _Authority:
    """Who signs."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    names = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign")
    off = dict.fromkeys((*names, "encipher_only", "decipher_only"), False)
    return x509.KeyUsage(digital_signature=not signs_certificates, key_cert_sign=signs_certificates, **off)


def _sign(
    names: Sequence[str],
    key: ec.EllipticCurvePrivateKey,
    by: _Authority | None,
    *,
    begins: int = -90,
    ends: int = 60,
    says_names: bool = True,
) -> x509.Certificate:
    """A certificate for names, or, for one without a dot, of an authority; without `by` it signs itself.

    Args:
        names: Whose.
        key: Of it.
        by: Who signs.
        begins: In how many days it begins to be valid.
        ends: In how many days it ends.
        says_names: Whether they are where clients look today (SAN), not only in the subject.
    """
    now = datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    is_authority = "." not in names[0]
    signer = by.key if by else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by.certificate.subject if by else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins * _DAY)
        .not_valid_after(now + ends * _DAY)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=is_authority), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )
    if not is_authority and says_names:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False
        )
    return builder.sign(signer, hashes.SHA256())


def write_certificates(folder: Path, name: str) -> None:
    """Write `privkey.pem`, and chains for it.

    `fullchain.pem` is the right one. The folder also has `cert.pem` (without the intermediate), `last-year.pem` (expired),
    `www.pem` (of another name), `snakeoil.pem` (signed by itself), `next-year.pem` (not valid yet), `five-days.pem`
    (about to end), `no-san.pem` (with the name only in its subject), `company.pem` (of an authority that clients do
    not know), `haproxy.pem` (the right one with its key), and `ca.pem`, which a client trusts.

    Args:
        folder: Where.
        name: The public name.
    """
    root_key, between_key, site_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    root = _Authority(_sign(["Root"], root_key, None), root_key)
    between = _Authority(_sign(["Intermediate"], between_key, root), between_key)
    company_key = ec.generate_private_key(ec.SECP256R1())
    company = _Authority(_sign(["Company"], company_key, None), company_key)
    right = _sign([name], site_key, between)
    chains = {
        "ca.pem": [root.certificate],
        "fullchain.pem": [right, between.certificate],
        "cert.pem": [right],
        "last-year.pem": [_sign([name], site_key, between, ends=-1), between.certificate],
        "next-year.pem": [_sign([name], site_key, between, begins=30, ends=400), between.certificate],
        "five-days.pem": [_sign([name], site_key, between, ends=5), between.certificate],
        "no-san.pem": [_sign([name], site_key, between, says_names=False), between.certificate],
        "company.pem": [_sign([name], site_key, company), company.certificate],
        "snakeoil.pem": [_sign([name], site_key, None)],
        "www.pem": [_sign([f"www.{name.partition('.')[2]}"], site_key, between), between.certificate],
    }
    for file, chain in chains.items():
        pem = b"".join(each.public_bytes(serialization.Encoding.PEM) for each in chain)
        (folder / file).write_bytes(pem)
    key = site_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "privkey.pem").write_bytes(key)
    (folder / "haproxy.pem").write_bytes((folder / "fullchain.pem").read_bytes() + key)
