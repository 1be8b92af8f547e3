"""Makes the tables, the user and the client."""

import json
import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "django_site.settings")
django.setup()

from django.contrib.auth import get_user_model  # noqa: E402
from django.core.management import call_command  # noqa: E402
from oauth2_provider.models import get_application_model  # noqa: E402

given = json.loads(os.environ["BENCH_DJANGO"])
call_command("migrate", verbosity=0)
get_user_model().objects.create_user("ada", "ada@example.com", first_name="Ada", last_name="Byron")
Application = get_application_model()
both = {"client_type": "confidential", "client_secret": given["client_secret"], "hash_client_secret": False}
Application.objects.create(
    client_id=given["client_id"],
    name="bench",
    redirect_uris=given["redirect_uri"],
    authorization_grant_type="authorization-code",
    skip_authorization=True,
    algorithm="RS256",
    **both,
)
