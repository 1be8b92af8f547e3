"""Two Django sites, as their packages' own first steps have them: mozilla-django-oidc, and django-allauth."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any, ClassVar

from apps.application import Application, Person, Running, SignOut, block_of
from apps.browser import Browser
from apps.installing import python, python_version, run
from apps.stand import EMAIL, Stand

_SETTINGS = """
from pathlib import Path

SECRET_KEY = "of your own, and long enough to be one"
DEBUG = True
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "site_urls"
DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": Path(__file__).with_name("db.sqlite3")}}}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
EMAIL_BACKEND = "django.core.mail.backends.dummy.EmailBackend"
TEMPLATES = [{{
    "BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True,
    "OPTIONS": {{"context_processors": [
        "django.template.context_processors.request", "django.contrib.auth.context_processors.auth",
        "django.contrib.messages.context_processors.messages",
    ]}},
}}]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware", "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware", "django.contrib.messages.middleware.MessageMiddleware",
    {middleware}
]
INSTALLED_APPS = [
    "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", "django.contrib.messages", {apps}
]
AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend", "{backend}"]
LOGIN_REDIRECT_URL = LOGOUT_REDIRECT_URL = "/"
"""
_URLS = """
from django.http import HttpResponse, JsonResponse
from django.middleware.csrf import get_token
from django.urls import include, path


def who(request):
    if not request.user.is_authenticated:
        return JsonResponse({{}})
    user = request.user
    extra = {{}}
    {extra}
    groups = sorted(user.groups.values_list("name", flat=True))
    return JsonResponse({{"name": user.get_full_name(), "email": user.email, "groups": groups, "extra": extra}})


def home(request):
    return HttpResponse(
        '<form method="post" action="{sign_out}"><input type="hidden" name="csrfmiddlewaretoken" value="'
        + get_token(request) + '"></form>'
    )


urlpatterns = [path("who", who), path("", home), path("{at}", include("{urls}"))]
"""


class _Site(Application):
    light = True
    module: ClassVar[str]
    site: ClassVar[dict[str, str]]
    urls: ClassVar[dict[str, str]]
    more: ClassVar[str] = ""
    files: ClassVar[dict[str, str]] = {}

    def version(self) -> str:
        return python_version("django", self.name)

    @contextlib.contextmanager
    def run(self, stand: Stand) -> Iterator[Running]:
        interpreter = python("django")
        with stand.port() as port:
            url = f"http://localhost:{port}"
            paste = stand.register(self.name, url)["paste"]
            (stand.folder / "site_settings.py").write_text(
                _SETTINGS.format(**self.site) + paste + "\n" + self.more
            )
            for name, text in self.files.items():
                (stand.folder / name).write_text(text)
            (stand.folder / "site_urls.py").write_text(_URLS.format(**self.urls))
            environ = {"DJANGO_SETTINGS_MODULE": "site_settings", "PYTHONPATH": str(stand.folder)}
            run(interpreter, "-m", "django", "migrate", cwd=stand.folder, **environ)
            serve = [interpreter, "-m", "django", "runserver", "--noreload", f"127.0.0.1:{port}"]
            with stand.process(serve, ready=f"{url}/who", environ=environ):
                yield self.running(url)

    def running(self, url: str) -> Running:
        """How its users sign in."""
        raise NotImplementedError


class _Mozilla(Running):
    refreshes, signs_out = True, SignOut.EVERYWHERE

    def __init__(self, url: str) -> None:
        self._url = url

    def sign_in(self, browser: Browser) -> Person:
        browser.open(f"{self._url}/oidc/authenticate/")
        who = browser.open(f"{self._url}/who").json()
        return Person(who["name"], who["email"], who["groups"])

    def refresh(self, browser: Browser) -> None:
        time.sleep(1.5)  # its OIDC_RENEW_ID_TOKEN_EXPIRY_SECONDS is 1 here
        before = len(browser.trail)
        assert browser.open(f"{self._url}/who").json()["email"] == EMAIL
        asked = [url for url in browser.trail[before:] if url.startswith(f"{browser.issuer}/oidc/authorize?")]
        assert len(asked) == 1 and "prompt=none" in asked[0], asked

    def sign_out(self, browser: Browser) -> None:
        form = browser.open(f"{self._url}/").form("csrfmiddlewaretoken")
        page = browser.submit(form)
        assert page.url == f"{self._url}/", page.url
        assert browser.open(f"{self._url}/who").json() == {}


class MozillaDjangoOidc(_Site):
    """The package mozilla-django-oidc of PyPI"""

    name = "mozilla-django-oidc"
    site = {
        "middleware": '"mozilla_django_oidc.middleware.SessionRefresh",',
        "apps": '"mozilla_django_oidc"',
        "backend": "site_auth.PylonBackend",
    }
    urls = {"extra": "", "at": "oidc/", "urls": "mozilla_django_oidc.urls", "sign_out": "/oidc/logout/"}
    more = "OIDC_RENEW_ID_TOKEN_EXPIRY_SECONDS = 1\n"
    files = {"site_auth.py": block_of("mozilla-django-oidc", "python")}

    def running(self, url: str) -> Running:
        return _Mozilla(url)


class _Allauth(Running):
    signs_out = SignOut.THERE

    def __init__(self, url: str) -> None:
        self._url = url

    def sign_in(self, browser: Browser) -> Person:
        form = browser.open(f"{self._url}/accounts/oidc/pylon/login/").form("csrfmiddlewaretoken")
        browser.submit(form)
        who: dict[str, Any] = browser.open(f"{self._url}/who").json()
        return Person(who["name"], who["email"], who["extra"]["userinfo"].get("groups"))

    def sign_out(self, browser: Browser) -> None:
        browser.submit(browser.open(f"{self._url}/").form("csrfmiddlewaretoken"))
        assert browser.open(f"{self._url}/who").json() == {}


class DjangoAllauth(_Site):
    """The package django-allauth of PyPI"""

    name = "django-allauth"
    site = {
        "middleware": '"allauth.account.middleware.AccountMiddleware",',
        "apps": '"allauth", "allauth.account", "allauth.socialaccount", "allauth.socialaccount.providers.openid_connect"',
        "backend": "allauth.account.auth_backends.AuthenticationBackend",
    }
    urls = {
        "extra": "extra = user.socialaccount_set.get().extra_data",
        "at": "accounts/",
        "urls": "allauth.urls",
        "sign_out": "/accounts/logout/",
    }

    def running(self, url: str) -> Running:
        return _Allauth(url)


APPS = [MozillaDjangoOidc(), DjangoAllauth()]
