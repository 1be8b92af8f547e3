vcl 4.1;

# Varnish between the proxy that speaks TLS and gunicorn: it keeps what the service says may be kept.
backend default {
    .host = "127.0.0.1";
    .port = "4321";
}

sub vcl_recv {
    # Health, tokens, sessions and sign-ins must not be cached.
    if (req.url !~ "^/(\.well-known/|oidc/jwks)") {
        return (pass);
    }
    unset req.http.Cookie;
    unset req.http.Authorization;
}

sub vcl_backend_response {
    if (beresp.http.Cache-Control ~ "no-store") {
        set beresp.uncacheable = true;
    }
}
