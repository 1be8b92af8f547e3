"""Refuses weak RSA keys: those that can be broken, and those that common verifiers refuse.

Owns: checks of a key's numbers. The library that loads a key checks whether the numbers belong together.
Never touches: settings, files, the format of keys.

Spec: FIPS 186-5 §A.1.1 (primes), RFC 8017 §3.1, CVE-2017-15361 (ROCA)
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Final

MIN_RSA_BITS: Final = 2048
#: The limit of OpenSSL, Java and every browser.
MAX_RSA_BITS: Final = 16_384
#: Go stores an exponent in 31 bits.
MAX_EXPONENT: Final = (1 << 31) - 1

#: The primes of a real key have the same length, but some tools let them differ by a bit or two.
_MOST_BITS_APART: Final = 8
#: FIPS 186-5 §A.1.1: the two primes must differ in their first bits; this many count.
_CLOSE_BITS: Final = 100
_FERMAT_STEPS: Final = 1000
_SMALL_PRIMES_BELOW: Final = 1 << 18
#: Modulo each of these, the primes of a vulnerable Infineon chip are powers of 65537; others rarely are.
_ROCA_PRIMES: Final = (11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157)


class WeakKey(ValueError):
    """The key is weak. The message says why, and contains nothing of the key."""


def check_rsa_public(modulus: int, exponent: int) -> None:
    """Refuse a public key that some verifiers would refuse, or that can be factored.

    Raises:
        WeakKey: if it is one of these.
    """
    check_exponent(exponent)
    check_modulus(modulus)


@functools.lru_cache(maxsize=8)
def check_modulus(modulus: int) -> None:
    """Refuse a weak modulus.

    Raises:
        WeakKey: see `check_rsa_public`.
    """
    _check_length(modulus)
    if modulus % 2 == 0:
        raise WeakKey("is even, so it is not an RSA modulus")
    if any(modulus % prime == 0 for prime in _small_primes()):
        raise WeakKey("has a tiny prime factor")
    if pow(2, modulus - 1, modulus) == 1:
        raise WeakKey("is a prime, so it is not an RSA modulus")
    if _has_close_factors(modulus):
        raise WeakKey("has two primes that are close to each other, so it can be factored")
    _check_roca(modulus)


def check_rsa_private(prime_p: int, prime_q: int, modulus: int, exponent: int) -> None:
    """Refuse a private key that some verifiers would refuse, or whose primes are easy to find.

    Raises:
        WeakKey: if it is one.
    """
    check_exponent(exponent)
    _check_length(modulus)
    if prime_p * prime_q != modulus:
        raise WeakKey("has more than two primes, which many programs cannot use")
    if abs(prime_p.bit_length() - prime_q.bit_length()) > _MOST_BITS_APART:
        raise WeakKey("has one prime that is much smaller than the other")
    if abs(prime_p - prime_q).bit_length() <= modulus.bit_length() // 2 - _CLOSE_BITS:
        raise WeakKey("has two primes that are close to each other, so it can be factored")
    _check_roca(modulus)


def check_exponent(exponent: int) -> None:
    """Refuse an exponent that verifiers refuse.

    Raises:
        WeakKey: if it is even, less than 3 or longer than 31 bits.
    """
    if exponent < 3 or exponent % 2 == 0:
        raise WeakKey("has an exponent that is even or less than 3")
    if exponent > MAX_EXPONENT:
        raise WeakKey(f"has an exponent above {MAX_EXPONENT}, which some verifiers refuse")


def _check_length(modulus: int) -> None:
    bits = modulus.bit_length()
    if bits < MIN_RSA_BITS:
        raise WeakKey(f"has {bits} bits; the minimum is {MIN_RSA_BITS}")
    if bits > MAX_RSA_BITS:
        raise WeakKey(f"has {bits} bits; verifiers accept at most {MAX_RSA_BITS}")
    if bits % 8:
        raise WeakKey(f"has {bits} bits, which is not a multiple of 8, and some verifiers refuse that")


def _has_close_factors(modulus: int) -> bool:
    """Fermat's method, for a few steps: modulus = a² - b²."""
    root = math.isqrt(modulus)
    a = root if root * root == modulus else root + 1
    rest = a * a - modulus
    for _ in range(_FERMAT_STEPS):
        if math.isqrt(rest) ** 2 == rest:
            return True
        rest += 2 * a + 1
        a += 1
    return False


def _check_roca(modulus: int) -> None:
    if all(modulus % prime in _powers_of_65537(prime) for prime in _ROCA_PRIMES):
        raise WeakKey("comes from a chip whose keys can be factored (ROCA, CVE-2017-15361)")


@functools.cache
def _powers_of_65537(prime: int) -> frozenset[int]:
    return frozenset(pow(65537, power, prime) for power in range(prime - 1))


def _small_primes() -> Iterator[int]:
    sieve = bytearray([1]) * _SMALL_PRIMES_BELOW
    for number in range(2, math.isqrt(_SMALL_PRIMES_BELOW) + 1):
        if sieve[number]:
            sieve[number * number :: number] = bytes(len(sieve[number * number :: number]))
    return (number for number in range(3, _SMALL_PRIMES_BELOW) if sieve[number])
