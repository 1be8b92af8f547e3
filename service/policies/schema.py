"""Makes the JSON Schema of a policy file, for editors. It is published as `policies.schema.json` in this folder.

Spec: JSON Schema draft 7, which TOML editors support.
"""

from __future__ import annotations

import json
from typing import Any

from service.policies.cases import CASE_SCHEMA
from service.policies.members import AUDIENCE, DEFAULT, table_schema


def json_schema() -> dict[str, Any]:
    """The schema."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Policies of pylon-oidc",
        "description": "One table for each audience: the content of its tokens, who may have one, and with which grant.",
        "type": "object",
        "additionalProperties": False,
        "required": ["audience"],
        "properties": {
            "default": {
                "description": "The defaults for all tables.",
                **table_schema(DEFAULT),
            },
            "audience": {
                "description": "The tables, by the names of the audiences.",
                "type": "object",
                "minProperties": 1,
                "propertyNames": {"minLength": 1, "maxLength": 255},
                "additionalProperties": table_schema(AUDIENCE),
            },
            "case": {
                "description": "Test cases for `pylon-oidc policy test`.",
                "type": "array",
                "items": CASE_SCHEMA,
            },
        },
    }


def as_text() -> str:
    """The schema as the text of the published file."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=True) + "\n"
