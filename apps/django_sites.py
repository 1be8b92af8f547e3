"""Two Django sites, as their packages' own first steps have them: mozilla-django-oidc, and django-allauth."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, ClassVar

from apps.application import Application, Person, Running
from apps.browser import Browser
from apps.installing import python, python_version, run
from apps.stand import Stand

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
    return JsonResponse({{"name": user.get_full_name(), "email": user.email, "extra": extra}})


def home(request):
    return HttpResponse(
        '<form method="post" action="/oidc/logout/"><input type="hidden" name="csrfmiddlewaretoken" value="'
        + get_token(request) + '"></form>'
    )


urlpatterns = [path("who", who), path("", home), path("{at}", include("{urls}"))]
"""


class _Site(Application):
    module: ClassVar[str]
    settings: ClassVar[dict[str, str]]
    urls: ClassVar[dict[str, str]]

    def version(self) -> str:
        return python_version("django", self.name)

    @contextlib.contextmanager
    def run(self, stand: Stand) -> Iterator[Running]:
        interpreter = python("django")
        with stand.port() as port:
            url = f"http://localhost:{port}"
            paste = stand.register(self.name, url)["paste"]
            (stand.folder / "site_settings.py").write_text(_SETTINGS.format(**self.settings) + paste + "\n")
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
    signs_out = True

    def __init__(self, url: str) -> None:
        self._url = url

    def sign_in(self, browser: Browser) -> Person:
        browser.open(f"{self._url}/oidc/authenticate/")
        return Person(email=browser.open(f"{self._url}/who").json()["email"])

    def sign_out(self, browser: Browser) -> None:
        form = browser.open(f"{self._url}/").form("csrfmiddlewaretoken")
        page = browser.submit(form)
        assert page.url == f"{self._url}/", page.url
        assert browser.open(f"{self._url}/who").json() == {}


class MozillaDjangoOidc(_Site):
    """The package mozilla-django-oidc of PyPI"""

    name = "mozilla-django-oidc"
    settings = {
        "middleware": "",
        "apps": '"mozilla_django_oidc"',
        "backend": "mozilla_django_oidc.auth.OIDCAuthenticationBackend",
    }
    urls = {"extra": "", "at": "oidc/", "urls": "mozilla_django_oidc.urls"}

    def running(self, url: str) -> Running:
        return _Mozilla(url)


class _Allauth(Running):
    def __init__(self, url: str) -> None:
        self._url = url

    def sign_in(self, browser: Browser) -> Person:
        form = browser.open(f"{self._url}/accounts/oidc/pylon/login/").form("csrfmiddlewaretoken")
        browser.submit(form)
        who: dict[str, Any] = browser.open(f"{self._url}/who").json()
        return Person(who["name"], who["email"], who["extra"]["userinfo"].get("groups"))


class DjangoAllauth(_Site):
    """The package django-allauth of PyPI"""

    name = "django-allauth"
    settings = {
        "middleware": '"allauth.account.middleware.AccountMiddleware",',
        "apps": '"allauth", "allauth.account", "allauth.socialaccount", "allauth.socialaccount.providers.openid_connect"',
        "backend": "allauth.account.auth_backends.AuthenticationBackend",
    }
    urls = {
        "extra": "extra = user.socialaccount_set.get().extra_data",
        "at": "accounts/",
        "urls": "allauth.urls",
    }

    def running(self, url: str) -> Running:
        return _Allauth(url)


APPS = [MozillaDjangoOidc(), DjangoAllauth()]
