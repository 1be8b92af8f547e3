"""What a deployment's file says is what is run."""

from __future__ import annotations

import pytest

from tests.doctor.deployment import SETTINGS, Deployment, Fix, fixed, shipped_files, with_settings
from tests.doctor.fixing import DoesNotFit
from tests.support.gunicorn import PROJECT

TWO = Deployment(
    name="two",
    title="Two replicas",
    settings={"PYLON_LOGIN_URL": False, "PYLON_JWT_AUDIENCE": "other"},
    replicas={"second": {"PYLON_OIDC_ISSUER": "https://old.example.com"}},
)


def test_the_files_are_the_shipped_ones() -> None:
    """Without changes the nginx site is what an operator copies, byte for byte."""
    files = shipped_files()
    for path in (PROJECT / "nginx").rglob("*.conf"):
        assert files[f"nginx/{path.relative_to(PROJECT / 'nginx')}"] == path.read_text()
    assert files["nginx/local.conf"] == (PROJECT / "nginx/local.conf.example").read_text()


def test_settings_of_a_replica_are_those_of_all_but_its_own() -> None:
    """A replica has the deployment's settings, and its own over them."""
    files = TWO.files()
    assert "PYLON_LOGIN_URL" not in files[SETTINGS]
    assert "PYLON_JWT_AUDIENCE=other\n" in files[SETTINGS]
    expected = with_settings(files[SETTINGS], {"PYLON_OIDC_ISSUER": "https://old.example.com"})
    assert files[f"second/{SETTINGS}"] == expected


def test_a_change_of_what_is_not_there_is_refused() -> None:
    """A deployment whose diff no longer fits the shipped files fails, and does not run unbroken."""
    broken = Deployment(
        name="x", title="", changes=({"file": "nginx/site.conf", "replace": "nowhere", "with": ""},)
    )
    with pytest.raises(AssertionError, match="has not one 'nowhere'"):
        broken.files()


def test_a_setting_is_fixed_on_every_machine() -> None:
    """A replica that is right already stays as it is; the other is fixed."""
    files = TWO.files()
    after = fixed(files, Fix(SETTINGS, "", "PYLON_OIDC_ISSUER=https://id.example.com"))
    assert after[SETTINGS] == files[SETTINGS]
    assert after[f"second/{SETTINGS}"] == files[SETTINGS]


@pytest.mark.parametrize(
    "fix",
    [
        Fix("nginx/snippets/nothing.conf", "", "gzip off;"),
        Fix("nginx/snippets/service.conf", "", "gzip off;"),
        Fix(SETTINGS, "", "PYLON_JWT_ALG=RS256"),
    ],
)
def test_a_fix_that_changes_nothing_is_refused(fix: Fix) -> None:
    """Neither a file that is not there nor a line that is there already passes for a fix."""
    with pytest.raises(DoesNotFit):
        fixed(TWO.files(), fix)
