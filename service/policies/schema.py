"""The JSON Schema of a policy file, for editors; `policies.schema.json` beside this file is what it makes.

Spec: JSON Schema draft 7, which editors of TOML read.
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
        "description": "One table an audience: what its tokens hold, who may have one, and by which way.",
        "type": "object",
        "additionalProperties": False,
        "required": ["audience"],
        "properties": {
            "default": {
                "description": "What every table has that does not say otherwise.",
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
                "description": "What must come of it, for `pylon-oidc policy test`.",
                "type": "array",
                "items": CASE_SCHEMA,
            },
        },
    }


def as_text() -> str:
    """The schema as the file that is published."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=True) + "\n"
