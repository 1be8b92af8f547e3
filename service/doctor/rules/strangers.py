"""What is open to clients that the operator did not register, which may be intended."""

from __future__ import annotations

from collections.abc import Iterator

from service.doctor.catalogue import Finding
from service.doctor.evidence import Evidence
from service.doctor.rules.reading import found


def registration(e: Evidence) -> Iterator[Finding]:
    """Whether everybody may register a client: the answer to such a request shows it, whatever the document names."""
    reply = e.reply("register")
    error = None if reply is None or reply.status != 400 else reply.json_object().get("error")
    if error not in ("invalid_redirect_uri", "invalid_client_metadata"):
        return  # closed, or only for those who have an invitation
    seen = f"400 {error} without an invitation"
    yield found(e, "registration-open", seen, variant="for-apis" if _apis(e) else "")


def audiences(e: Evidence) -> Iterator[Finding]:
    """Which APIs strangers may use, and whether there can be a stranger at all."""
    if not e.is_ours or not (apis := _apis(e)):
        return
    document = e.document
    is_used = (
        "registration_endpoint" in document or document.get("client_id_metadata_document_supported") is True
    )
    yield found(e, "audience-open", ", ".join(apis), variant="" if is_used else "nobody")


def _apis(e: Evidence) -> list[str]:
    listed = e.document.get("protected_resources")
    return [each for each in listed if isinstance(each, str)] if isinstance(listed, list) else []
