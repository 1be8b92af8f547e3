"""The keys of a ring as a worker uses them: opened, imported and tried once each; and the keyring of a moment.

Owns: which private parts are open, and which public keys are imported.
Never touches: when to look again, the log of changes.
"""

from __future__ import annotations

from service.keys.material import AsymmetricKey, KeyFault, load_public_jwk
from service.keys.ring import KeyRecord, Ring, published, role, signer
from service.keys.sealing import Unsealable
from service.keys.signing import Keyring, PublicKey, SigningKey, try_key
from service.keys.store import RingStore
from service.keys.telling import log


class OpenedKeys:
    """The keys that are open here.

    Args:
        rings: opens private parts.
        environment: what is of the environment all the same.
    """

    def __init__(self, rings: RingStore, environment: Keyring) -> None:
        self._rings = rings
        self._environment = environment
        self._private: dict[str, AsymmetricKey] = {}
        self._public: dict[str, AsymmetricKey] = {}

    def open_all(self, ring: Ring, now: int) -> None:
        """Open and try every key that signs, or will.

        Raises:
            Unsealable: when one cannot be opened.
        """
        for key in ring.keys:
            if role(key, now) in {"active", "next"}:
                self._private[key.kid] = self._tried(key, ring)

    def keyring(self, ring: Ring, now: int) -> Keyring:
        """What the ring means now."""
        shown = published(ring.keys, now)
        # The next ones too: on the second at which they begin there is nothing left to do.
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
        # What has come into the ring is shown once, and not when it is revoked.
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
        )

    def _prepare(self, key: KeyRecord, ring: Ring) -> None:
        """Open a key that signs, or will. What cannot be opened is published all the same: other replicas sign by it."""
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
