"""The keys of a ring in a worker: each decrypted, imported and tested once; and the current keyring.

Owns: which private keys are decrypted, and which public keys are imported.
Never touches: when to read the ring again, the log of changes.
"""

from __future__ import annotations

from service.keys.material import AsymmetricKey, KeyFault, load_public_jwk
from service.keys.ring import KeyRecord, Ring, published, role, signer
from service.keys.sealing import Unsealable
from service.keys.signing import Keyring, PublicKey, SigningKey, try_key
from service.keys.store import RingStore
from service.keys.telling import log


class OpenedKeys:
    """The decrypted keys of this worker.

    Args:
        rings: decrypts private keys.
        environment: what still comes from the environment.
    """

    def __init__(self, rings: RingStore, environment: Keyring) -> None:
        self._rings = rings
        self._environment = environment
        self._private: dict[str, AsymmetricKey] = {}
        self._public: dict[str, AsymmetricKey] = {}

    def open_all(self, ring: Ring, now: int) -> None:
        """Decrypt and test every key that signs, or will sign.

        Raises:
            Unsealable: if one cannot be decrypted.
        """
        for key in ring.keys:
            if role(key, now) in {"active", "next"}:
                self._private[key.kid] = self._tried(key, ring)

    def keyring(self, ring: Ring, now: int) -> Keyring:
        """Build the current keyring from the ring."""
        shown = published(ring.keys, now)
        # Also the next keys, so that they can sign from their first second.
        for key in ring.keys:
            if role(key, now) in {"active", "next"} and key.kid not in self._private:
                self._prepare(key, ring)
        for kid in set(self._private) - {key.kid for key in shown}:
            self._private.pop(kid, None)
        signing = {}
        for alg in {key.alg for key in shown}:
            chosen = signer(ring.keys, alg, now)
            if chosen is not None and chosen.kid in self._private:
                signing[alg] = SigningKey(chosen.kid, self._private[chosen.kid])
        # A new key is published unless it is revoked.
        settled = [key for key in ring.keys if role(key, now) != "gone" or key.revoked_at is not None]
        in_ring = {key.kid for key in settled} | {key.jwk.get("n") for key in settled}
        elsewhere = [key for key in self._environment.published if not in_ring & {key.kid, key.jwk.get("n")}]
        return Keyring(
            self._environment.mint_alg,
            self._environment.secret,
            signing,
            (*(PublicKey(key.kid, key.alg, key.jwk) for key in shown), *elsewhere),
            {(key.kid, key.alg): self._public_key(key) for key in shown},
            {
                (key.kid, key.alg): self._public_key(key)
                for key in ring.keys
                if role(key, now) == "gone" and key.revoked_at is None
            },
            previous=self._environment.previous,
        )

    def _prepare(self, key: KeyRecord, ring: Ring) -> None:
        """Decrypt a key that signs, or will sign. If that fails, it is still published, because other replicas sign with it."""
        try:
            self._private[key.kid] = self._tried(key, ring)
        except Unsealable as error:
            log.error("keys_unreadable", detail=str(error))

    def _tried(self, key: KeyRecord, ring: Ring) -> AsymmetricKey:
        private = self._rings.open(key, ring)
        try:
            signing = {key.alg: SigningKey(key.kid, private)}
            verifying = {(key.kid, key.alg): self._public_key(key)}
            try_key(Keyring(key.alg, signing=signing, verifying=verifying), key.alg)
        except KeyFault as error:
            raise Unsealable(f"of the key {key.kid}: {error}") from None
        return private

    def _public_key(self, key: KeyRecord) -> AsymmetricKey:
        if key.kid not in self._public:
            self._public[key.kid] = load_public_jwk(key.jwk)
        return self._public[key.kid]
