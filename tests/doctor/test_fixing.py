"""Fixes are applied as their three parts say, and to nothing else."""

from __future__ import annotations

import pytest

from tests.doctor.fixing import DoesNotFit, fix_text
from tests.support.cases import each_of

NGINX = """# proxy_set_header Host wrong;
proxy_set_header Host $host;
proxy_set_header X-Real-IP $remote_addr;
add_header A "b; }" always;

upstream pylon { server a; server b; }
server {
    listen 443 ssl;
    ssl_certificate /old.pem;
    location ~* /api/(?:x|y)(?![a-z]) {
        limit_except DELETE OPTIONS {
            deny all;
        }
        proxy_pass http://one;
    }
}
server {
    listen 80;
}
"""
APACHE = """# Header set A b
<VirtualHost *:443>
    ServerName id.example.com
    RequestHeader unset Authorization
    <Location "/x">
        Require all granted
    </Location>
</VirtualHost>
"""
HAPROXY = """frontend https
    http-request set-header Host a
    http-request set-header X-Other b
    default_backend pylon_oidc

backend pylon_oidc
    server one 127.0.0.1:1
"""
CADDY = """# Caddy
id.example.com {
	header Strict-Transport-Security max-age=1
	@admin {
		path /x
	}
	reverse_proxy 127.0.0.1:4321 {
		header_up Host wrong
		header_up -X-Forwarded-Host
	}
}
"""

CASES = [
    # replaced: in the block that is meant, found by the values that it sets, whatever else is in it
    ("nginx/x.conf", NGINX, "", "proxy_set_header Host $http_host;", "Host $host;", "Host $http_host;"),
    ("nginx/x.conf", NGINX, "server", "ssl_certificate /new.pem;", "/old.pem", "/new.pem"),
    ("nginx/x.conf", NGINX, "upstream pylon", "server c;", "server a; server b;", "server c; "),
    (
        "nginx/x.conf",
        NGINX,
        "server > location ~* /api/(?:x|y)(?![a-z])",
        "proxy_pass http://two;",
        "http://one",
        "http://two",
    ),
    (
        "nginx/x.conf",
        NGINX,
        "server > location ~* /api/(?:x|y)(?![a-z]) > limit_except DELETE OPTIONS",
        "include only.conf;",
        "OPTIONS {",
        "OPTIONS {\n            include only.conf;",
    ),
    (
        "nginx/x.conf",
        NGINX,
        "server",
        "location ~* /api/(?:x|y)(?![a-z]) { return 404; }",
        NGINX[NGINX.index("location") : NGINX.index("}\nserver {\n    listen 80")],
        "location ~* /api/(?:x|y)(?![a-z]) { return 404; }\n",
    ),
    # added: first in its block
    ("nginx/x.conf", NGINX, "", "gzip off;", "# proxy", "gzip off;\n# proxy"),
    ("nginx/x.conf", NGINX, "server", "gzip off;", "server {\n    listen 443", "server {\n    gzip off;\n    listen 443"),
    # removed
    ("nginx/x.conf", NGINX, "", "- proxy_set_header X-Real-IP", "proxy_set_header X-Real-IP $remote_addr;", ""),
    ("nginx/x.conf", NGINX, "", "- add_header", 'add_header A "b; }" always;', ""),
    ("/etc/pylon-oidc/env", "#A=0\nA=1\nAB=2\n", "", "A=3", "\nA=1", "\nA=3"),
    ("/etc/pylon-oidc/env", "#A=0\nA=1\nAB=2\n", "", "- A", "\nA=1", "\n"),
    ("/etc/pylon-oidc/env", "A=1\n", "", "B=x=y", "A=1", "B=x=y\nA=1"),
    ("/etc/systemd/timesyncd.conf", "[Time]\n#NTP=\n", "Time", "NTP=a.example", "]", "]\n    NTP=a.example"),
    (
        "/etc/apache2/sites-available/pylon-oidc.conf",
        APACHE,
        "VirtualHost *:443",
        "ProxyPreserveHost On",
        "*:443>",
        "*:443>\n    ProxyPreserveHost On",
    ),
    (
        "/etc/apache2/sites-available/pylon-oidc.conf",
        APACHE,
        "VirtualHost *:443",
        "- RequestHeader unset Authorization",
        "RequestHeader unset Authorization",
        "",
    ),
    (
        "/etc/apache2/sites-available/pylon-oidc.conf",
        APACHE,
        'VirtualHost *:443 > Location "/x"',
        "Require all denied",
        "granted",
        "denied",
    ),
    ("/etc/haproxy/haproxy.cfg", HAPROXY, "frontend https", "- http-request set-header Host", "http-request set-header Host a", ""),
    ("/etc/haproxy/haproxy.cfg", HAPROXY, "frontend https", "http-request set-header Host c", "Host a", "Host c"),
    (
        "/etc/haproxy/haproxy.cfg",
        HAPROXY + "frontend deny\n    http-request deny if a\n",
        "frontend deny",
        "http-request deny if b",
        "deny\n    http",
        "deny\n    http-request deny if b\n    http",
    ),
    ("/etc/caddy/Caddyfile", CADDY, "id.example.com", "header Strict-Transport-Security max-age=2", "max-age=1", "max-age=2"),
    ("/etc/caddy/Caddyfile", CADDY, "id.example.com > reverse_proxy", "header_up Host {host}", "Host wrong", "Host {host}"),
    ("/etc/caddy/Caddyfile", CADDY, "id.example.com > reverse_proxy", "- header_up -X-Forwarded-Host", "header_up -X-Forwarded-Host", ""),
    ("/etc/caddy/Caddyfile", CADDY, "id.example.com", "respond /x 403", ".com {", ".com {\n    respond /x 403"),
    ("/etc/haproxy/haproxy.cfg", HAPROXY, "backend pylon_oidc", "server one 127.0.0.1:2", ":1", ":2"),
]  # fmt: skip


@each_of(("file", "text", "block", "line", "old", "new"), CASES)
def test_a_fix_changes_one_thing(file: str, text: str, block: str, line: str, old: str, new: str) -> None:
    """What is there afterwards differs in that place, and nowhere else."""
    assert text.count(old) == 1
    assert fix_text(file, text, block, line) == text.replace(old, new)


@each_of(
    ("block", "line"),
    [
        ("location /", "gzip off;"),
        ("server > location /", "gzip off;"),
        ("", "- gzip"),
        ("", "proxy_set_header Host $host;"),
        ("server", "- proxy_pass"),
    ],
)
def test_a_fix_that_does_not_fit_is_refused(block: str, line: str) -> None:
    """A block that is not there, something to remove that is not there, and what is there already."""
    with pytest.raises(DoesNotFit):
        fix_text("nginx/x.conf", NGINX, block, line)
